package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodSandboxStats tells what a pod and its containers use. A missing pod is
// NotFound.
func (s *Server) PodSandboxStats(ctx context.Context, req *runtime.PodSandboxStatsRequest) (*runtime.PodSandboxStatsResponse, error) {
	pod, err := s.pod("pod_sandbox_id", req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	stats, err := s.podStatsOf(ctx, pod.ID)
	if err != nil {
		return nil, err
	}
	return &runtime.PodSandboxStatsResponse{Stats: stats}, nil
}

func (s *Server) podStatsOf(ctx context.Context, podID string) (*runtime.PodSandboxStats, error) {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	return s.sandboxes.PodStats(ctx, podID)
}
