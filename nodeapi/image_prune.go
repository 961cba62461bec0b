package nodeapi

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
)

// Prune removes images that no container needs.
func (s *images) Prune(ctx context.Context, req *nodev1.PruneImagesRequest) (*nodev1.PruneImagesResponse, error) {
	pruned, bytes, err := s.images.Prune(ctx, req.GetAll(), func(img imageservice.Image) bool { return pruneWants(img, req) })
	if err != nil {
		return nil, err
	}
	resp := &nodev1.PruneImagesResponse{ReclaimedBytes: bytes}
	for _, one := range pruned {
		resp.Removed = append(resp.Removed, &nodev1.RemovedImage{Untagged: one.Names, Deleted: []string{one.ID}})
	}
	s.emitPrune(eventImage, bytes)
	return resp, nil
}

// pruneWants says whether an image passes the filters.
func pruneWants(img imageservice.Image, req *nodev1.PruneImagesRequest) bool {
	var labels map[string]string
	if img.Config != nil {
		labels = img.Config.Config.Labels
		if until := req.GetUntil(); until != nil && img.Config.Created != nil && img.Config.Created.After(until.AsTime()) {
			return false
		}
	}
	return hasLabels(labels, req.GetLabels()) && !hasAnyLabel(labels, req.GetWithoutLabels())
}
