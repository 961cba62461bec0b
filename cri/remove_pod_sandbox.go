package cri

import (
	"context"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RemovePodSandbox stops a pod and removes it with its containers. A pod that is
// unknown is removed.
func (s *Server) RemovePodSandbox(ctx context.Context, req *runtime.RemovePodSandboxRequest) (*runtime.RemovePodSandboxResponse, error) {
	pod, err := s.pod("pod_sandbox_id", req.GetPodSandboxId())
	if errdefs.IsNotFound(err) {
		return &runtime.RemovePodSandboxResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.sandboxes.RemovePod(ctx, pod.ID); err != nil {
		return nil, err
	}
	return &runtime.RemovePodSandboxResponse{}, nil
}
