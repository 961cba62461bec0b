package nodeapi

import (
	"context"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// Remove removes a volume that no container uses.
func (s *volumes) Remove(_ context.Context, req *nodev1.RemoveVolumeRequest) (*nodev1.RemoveVolumeResponse, error) {
	v, err := s.findVolume(req.GetName())
	if errdefs.IsNotFound(err) && req.GetForce() {
		return &nodev1.RemoveVolumeResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if users := s.volumeUses()[v.Name]; len(users) > 0 {
		return nil, failf(errdefs.ErrFailedPrecondition, "remove %s: volume is in use - [%s]", v.Name, strings.Join(users, ", "))
	}
	if err := s.removeVolume(v.Name); err != nil {
		return nil, err
	}
	return &nodev1.RemoveVolumeResponse{}, nil
}
