package nodeapi

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
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
	for running(c) {
		if c, err = s.sandboxes.WaitContainer(ctx, c.ID); err != nil {
			return nil, err
		}
		s.tellEnd(c)
	}
	return &nodev1.WaitResponse{ExitCode: int32(c.ExitCode)}, nil
}
