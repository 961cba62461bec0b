package nodeapi

import (
	"context"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
)

// Wait returns once a container does not run, with its exit code.
func (s *containers) Wait(ctx context.Context, req *nodev1.WaitRequest) (*nodev1.WaitResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	defer s.hold(c)()
	for running(c) || s.restarting(c) {
		if !running(c) {
			if c, err = s.nextLook(ctx, c); err != nil {
				return nil, err
			}
			continue
		}
		if c, err = s.sandboxes.WaitContainer(ctx, c.ID); err != nil {
			return nil, err
		}
		s.tellEnd(c)
	}
	return &nodev1.WaitResponse{ExitCode: int32(c.ExitCode)}, nil
}

// restartLook is how long it is between two looks at a container that waits to
// be started again.
const restartLook = 50 * time.Millisecond

// nextLook gives a container as it is a little later.
func (s *Server) nextLook(ctx context.Context, c sandbox.Container) (sandbox.Container, error) {
	timer := time.NewTimer(restartLook)
	defer timer.Stop()
	select {
	case <-timer.C:
		return s.sandboxes.Container(c.ID)
	case <-ctx.Done():
		return c, ctx.Err()
	}
}
