package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ReopenContainerLog begins a new log file after kubelet moved the old one
// away. A container that does not run gets an error, and no file.
func (s *Server) ReopenContainerLog(ctx context.Context, req *runtime.ReopenContainerLogRequest) (*runtime.ReopenContainerLogResponse, error) {
	ctr, err := s.running("reopen log of", req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if err := s.sandboxes.ReopenLog(ctx, ctr.ID); err != nil {
		return nil, err
	}
	return &runtime.ReopenContainerLogResponse{}, nil
}
