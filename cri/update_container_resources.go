package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UpdateContainerResources changes a container's limits; what is zero stays as
// it is.
func (s *Server) UpdateContainerResources(ctx context.Context, req *runtime.UpdateContainerResourcesRequest) (*runtime.UpdateContainerResourcesResponse, error) {
	if req.GetLinux() == nil {
		return nil, missing("linux")
	}
	ctr, err := s.container(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if err := s.sandboxes.UpdateContainer(ctx, ctr.ID, req.GetLinux()); err != nil {
		return nil, err
	}
	return &runtime.UpdateContainerResourcesResponse{}, nil
}
