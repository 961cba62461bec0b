package cri

import (
	"context"

	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListContainerStats tells what the running containers that match a filter use.
func (s *Server) ListContainerStats(ctx context.Context, req *runtime.ListContainerStatsRequest) (*runtime.ListContainerStatsResponse, error) {
	stats, err := s.containerStats(ctx, req.GetFilter())
	if err != nil {
		return nil, err
	}
	return &runtime.ListContainerStatsResponse{Stats: stats}, nil
}

func (s *Server) containerStats(ctx context.Context, filter *runtime.ContainerStatsFilter) ([]*runtime.ContainerStats, error) {
	ctrs := filterRunning(s.containers(), filter)
	ids := make([]string, len(ctrs))
	for i := range ctrs {
		ids[i] = ctrs[i].ID
	}
	s.sandboxes.ReadAhead(ctx, nil, ids)
	return gather(ctx, s.log, ctrs, func(ctx context.Context, ctr *sandbox.Container) (*runtime.ContainerStats, error) {
		return s.statsOf(ctx, ctr.ID)
	})
}
