package cri

import (
	"context"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StopPodSandbox ends a pod's containers and gives back its network. A pod that
// is unknown, or stopped already, is stopped.
func (s *Server) StopPodSandbox(ctx context.Context, req *runtime.StopPodSandboxRequest) (*runtime.StopPodSandboxResponse, error) {
	pod, err := s.pod("pod_sandbox_id", req.GetPodSandboxId())
	if errdefs.IsNotFound(err) {
		return &runtime.StopPodSandboxResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.sandboxes.StopPod(ctx, pod.ID); err != nil {
		return nil, err
	}
	return &runtime.StopPodSandboxResponse{}, nil
}
