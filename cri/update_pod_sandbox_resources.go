package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UpdatePodSandboxResources tells a pod of limits that kubelet has set on its
// cgroup.
func (s *Server) UpdatePodSandboxResources(ctx context.Context, req *runtime.UpdatePodSandboxResourcesRequest) (*runtime.UpdatePodSandboxResourcesResponse, error) {
	pod, err := s.pod("pod_sandbox_id", req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if err := s.sandboxes.UpdatePod(ctx, pod.ID, req.GetOverhead(), req.GetResources()); err != nil {
		return nil, err
	}
	return &runtime.UpdatePodSandboxResourcesResponse{}, nil
}
