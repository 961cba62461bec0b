package cri

import (
	"context"

	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListPodSandboxStats tells what the ready pods that match a filter use.
func (s *Server) ListPodSandboxStats(ctx context.Context, req *runtime.ListPodSandboxStatsRequest) (*runtime.ListPodSandboxStatsResponse, error) {
	stats, err := s.podStats(ctx, req.GetFilter())
	if err != nil {
		return nil, err
	}
	return &runtime.ListPodSandboxStatsResponse{Stats: stats}, nil
}

func (s *Server) podStats(ctx context.Context, filter *runtime.PodSandboxStatsFilter) ([]*runtime.PodSandboxStats, error) {
	pods := filterReady(s.pods(), filter)
	ids := make([]string, len(pods))
	for i := range pods {
		ids[i] = pods[i].ID
	}
	s.sandboxes.ReadAhead(ctx, ids, nil)
	return gather(ctx, s.log, pods, func(ctx context.Context, pod *sandbox.Pod) (*runtime.PodSandboxStats, error) {
		return s.podStatsOf(ctx, pod.ID)
	})
}
