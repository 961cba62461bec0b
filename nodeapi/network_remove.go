package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// Remove removes a network that no running container is on.
func (s *peopleNetworks) Remove(ctx context.Context, req *nodev1.RemoveNetworkRequest) (*nodev1.RemoveNetworkResponse, error) {
	if name := s.predefinedName(req.GetNetwork()); name != "" {
		return nil, failf(errdefs.ErrPermissionDenied, "%s is a pre-defined network and cannot be removed", name)
	}
	n, err := s.networks.Remove(ctx, req.GetNetwork())
	if err != nil {
		return nil, personal(err)
	}
	s.emitNetwork("destroy", n)
	return &nodev1.RemoveNetworkResponse{}, nil
}
