package server

import (
	"context"
	"fmt"

	"github.com/opencontainers/runc/libcontainer"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor"
)

// Pause freezes a container.
func (s *Server) Pause(ctx context.Context, req *v1.ContainerRequest) (*v1.Empty, error) {
	return s.freeze(ctx, req.Id, "pause", supervisor.StatusPaused, (*libcontainer.Container).Pause)
}

// Resume thaws a container.
func (s *Server) Resume(ctx context.Context, req *v1.ContainerRequest) (*v1.Empty, error) {
	return s.freeze(ctx, req.Id, "resume", supervisor.StatusRunning, (*libcontainer.Container).Resume)
}

// freeze brings a container to the wanted status by do, unless it has it.
func (s *Server) freeze(ctx context.Context, id, verb string, want supervisor.Status, do func(*libcontainer.Container) error) (*v1.Empty, error) {
	c, err := s.findRunning(id)
	if err != nil {
		return nil, fmt.Errorf("%s %w", verb, err)
	}
	if err := c.acquire(ctx); err != nil {
		return nil, fmt.Errorf("%s %w", verb, err)
	}
	defer c.release()
	c.mu.Lock()
	have := c.status
	c.mu.Unlock()
	if have == want {
		return &v1.Empty{}, nil
	}
	handle, err := s.loaded(c)
	if err != nil {
		return nil, fmt.Errorf("%s %w", verb, err)
	}
	if err := do(handle); err != nil {
		return nil, fmt.Errorf("%s container %s: %w", verb, c.id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == supervisor.StatusStopped {
		return nil, fmt.Errorf("%s %w", verb, c.notRunning())
	}
	c.status = want
	return &v1.Empty{}, nil
}
