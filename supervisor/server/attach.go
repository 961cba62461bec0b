package server

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor/server/stdio"
)

// Attach connects a client's descriptors to a running container.
func (s *Server) Attach(_ context.Context, req *v1.AttachRequest) (*v1.Empty, error) {
	files, err := s.tokens.take(req.Streams)
	if err != nil {
		return nil, fmt.Errorf("attach to container %s: %w", req.Id, err)
	}
	defer files.Close()
	c, err := s.findRunning(req.Id)
	if err != nil {
		return nil, fmt.Errorf("attach to %w", err)
	}
	if files.Empty() {
		return nil, fmt.Errorf("attach to container %s: no streams: %w", c.id, errdefs.ErrInvalidArgument)
	}
	c.mu.Lock()
	streams := c.io
	c.mu.Unlock()
	if streams == nil {
		return nil, fmt.Errorf("attach to %w", c.notRunning())
	}
	client := stdio.Streams{
		Stdin:  files.Stdin,
		Stdout: files.Stdout,
		Stderr: files.Stderr,
		Wait:   req.Streams.Wait,
	}
	files.Stdin, files.Stdout, files.Stderr = nil, nil, nil
	if err := streams.Attach(client); err != nil {
		return nil, fmt.Errorf("container %s: %w", c.id, err)
	}
	return &v1.Empty{}, nil
}

// Resize sets the size of the terminal of a container's init.
func (s *Server) Resize(_ context.Context, req *v1.ResizeRequest) (*v1.Empty, error) {
	const largest = 1<<16 - 1
	if req.Width > largest || req.Height > largest {
		return nil, fmt.Errorf("resize terminal of container %s: %dx%d: %w", req.Id, req.Width, req.Height, errdefs.ErrInvalidArgument)
	}
	c, err := s.findRunning(req.Id)
	if err != nil {
		return nil, fmt.Errorf("resize terminal of %w", err)
	}
	c.mu.Lock()
	streams := c.io
	c.mu.Unlock()
	if streams == nil {
		return nil, fmt.Errorf("resize terminal of %w", c.notRunning())
	}
	if err := streams.Resize(uint16(req.Width), uint16(req.Height)); err != nil {
		return nil, fmt.Errorf("resize terminal of container %s: %w", c.id, err)
	}
	return &v1.Empty{}, nil
}

// ReopenLog opens the container's log path anew.
func (s *Server) ReopenLog(_ context.Context, req *v1.ContainerRequest) (*v1.Empty, error) {
	c, err := s.findRunning(req.Id)
	if err != nil {
		return nil, fmt.Errorf("reopen log of %w", err)
	}
	c.mu.Lock()
	streams := c.io
	c.mu.Unlock()
	if streams == nil {
		return nil, fmt.Errorf("reopen log of %w", c.notRunning())
	}
	if err := streams.ReopenLog(); err != nil {
		return nil, fmt.Errorf("reopen log of container %s: %w", c.id, err)
	}
	return &v1.Empty{}, nil
}
