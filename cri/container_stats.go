package cri

import (
	"context"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerStats tells what a container uses. A missing one is NotFound; one
// that does not run uses nothing but its layer.
func (s *Server) ContainerStats(ctx context.Context, req *runtime.ContainerStatsRequest) (*runtime.ContainerStatsResponse, error) {
	ctr, err := s.container(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	stats, err := s.statsOf(ctx, ctr.ID)
	if err != nil {
		return nil, err
	}
	return &runtime.ContainerStatsResponse{Stats: stats}, nil
}

// statsTimeout bounds one reading, so that a cgroup that hangs costs a list
// only its own line.
const statsTimeout = 5 * time.Second

func (s *Server) statsOf(ctx context.Context, containerID string) (*runtime.ContainerStats, error) {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	return s.sandboxes.ContainerStats(ctx, containerID)
}
