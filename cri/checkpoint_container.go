package cri

import (
	"context"
	"fmt"
	"path"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CheckpointContainer writes a running container's checkpoint to a file; the
// container goes on.
func (s *Server) CheckpointContainer(ctx context.Context, req *runtime.CheckpointContainerRequest) (*runtime.CheckpointContainerResponse, error) {
	switch {
	case req.GetLocation() == "":
		return nil, missing("location")
	case !path.IsAbs(req.GetLocation()):
		return nil, invalid("location", fmt.Sprintf("%.200q is not absolute", req.GetLocation()))
	case req.GetTimeout() < 0 || req.GetTimeout() > maxCheckpointSeconds:
		return nil, invalid("timeout", fmt.Sprintf("%d seconds", req.GetTimeout()))
	}
	ctr, err := s.running("checkpoint", req.GetContainerId())
	if err != nil {
		return nil, err
	}
	timeout := time.Duration(req.GetTimeout()) * time.Second
	if err := s.sandboxes.CheckpointContainer(ctx, ctr.ID, req.GetLocation(), timeout); err != nil {
		return nil, err
	}
	return &runtime.CheckpointContainerResponse{}, nil
}

// maxCheckpointSeconds is the longest timeout taken: a day.
const maxCheckpointSeconds = 24 * 60 * 60
