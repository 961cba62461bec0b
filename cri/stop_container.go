package cri

import (
	"context"
	"math"
	"time"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StopContainer ends a container, by its stop signal and after the timeout by
// SIGKILL. One that is unknown, or has ended, is stopped.
func (s *Server) StopContainer(ctx context.Context, req *runtime.StopContainerRequest) (*runtime.StopContainerResponse, error) {
	timeout, err := seconds("timeout", req.GetTimeout())
	if err != nil {
		return nil, err
	}
	ctr, err := s.container(req.GetContainerId())
	if errdefs.IsNotFound(err) {
		return &runtime.StopContainerResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.sandboxes.StopContainer(ctx, ctr.ID, timeout); err != nil {
		return nil, err
	}
	return &runtime.StopContainerResponse{}, nil
}

// seconds is a request's number of seconds; more than a Duration holds (292
// years) is cut to that.
func seconds(field string, n int64) (time.Duration, error) {
	if n < 0 {
		return 0, invalid(field, "is negative")
	}
	return time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second, nil
}
