package nodeapi

import (
	"context"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// defaultStopTimeout is how long stop waits before it kills, as docker does.
const defaultStopTimeout = 10 * time.Second

// Stop asks a container to end, then kills it.
func (s *containers) Stop(ctx context.Context, req *nodev1.StopRequest) (*nodev1.StopResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	if !running(c) {
		return &nodev1.StopResponse{}, nil
	}
	timeout := defaultStopTimeout
	if own := s.specOf(c).GetStopTimeout(); own != nil {
		timeout = own.AsDuration()
	}
	if req.GetTimeout() != nil {
		timeout = req.GetTimeout().AsDuration()
	}
	if err := s.sandboxes.StopContainer(ctx, c.ID, timeout); err != nil {
		return nil, err
	}
	return &nodev1.StopResponse{}, nil
}
