package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StartContainer starts a created container.
func (s *Server) StartContainer(ctx context.Context, req *runtime.StartContainerRequest) (*runtime.StartContainerResponse, error) {
	ctr, err := s.container(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if _, err := s.sandboxes.StartContainer(ctx, ctr.ID, nil); err != nil {
		return nil, err
	}
	return &runtime.StartContainerResponse{}, nil
}
