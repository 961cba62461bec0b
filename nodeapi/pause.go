package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
)

// Pause freezes a running container.
func (s *containers) Pause(ctx context.Context, req *nodev1.PauseRequest) (*nodev1.PauseResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	switch {
	case c.State == sandbox.ContainerPaused:
		return nil, failf(errdefs.ErrFailedPrecondition, "container %s is already paused", c.ID)
	case !running(c):
		return nil, failf(errdefs.ErrFailedPrecondition, "container %s is not running", c.ID)
	}
	if err := s.sandboxes.PauseContainer(ctx, c.ID); err != nil {
		return nil, err
	}
	s.emitContainer("pause", c)
	return &nodev1.PauseResponse{}, nil
}

// Unpause lets a paused container go on.
func (s *containers) Unpause(ctx context.Context, req *nodev1.UnpauseRequest) (*nodev1.UnpauseResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	if c.State != sandbox.ContainerPaused {
		return nil, failf(errdefs.ErrFailedPrecondition, "container %s is not paused", c.ID)
	}
	if err := s.sandboxes.ResumeContainer(ctx, c.ID); err != nil {
		return nil, err
	}
	s.emitContainer("unpause", c)
	return &nodev1.UnpauseResponse{}, nil
}
