package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// Prune removes volumes that no container uses.
func (s *volumes) Prune(ctx context.Context, req *nodev1.PruneVolumesRequest) (*nodev1.PruneVolumesResponse, error) {
	resp := &nodev1.PruneVolumesResponse{}
	uses := s.volumeUses()
	for _, v := range s.volumes.List() {
		if len(uses[v.Name]) > 0 || (!v.Anonymous && !req.GetAll()) ||
			!hasLabels(v.Labels, req.GetLabels()) || hasAnyLabel(v.Labels, req.GetWithoutLabels()) {
			continue
		}
		size, err := s.volumes.Size(ctx, v.Name)
		if err == nil {
			err = s.removeVolume(v.Name)
		}
		switch {
		case errdefs.IsNotFound(err), errdefs.IsFailedPrecondition(err):
			continue // somebody was quicker, or wants it now
		case err != nil:
			return nil, err
		}
		resp.Names = append(resp.Names, v.Name)
		resp.ReclaimedBytes += size
	}
	s.emitPrune(eventVolume, resp.GetReclaimedBytes())
	return resp, nil
}
