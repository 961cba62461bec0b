package server

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
)

// Shutdown ends a supervisor that holds nothing. Its sockets are gone before
// it answers, so that who asks for a supervisor afterwards starts another.
func (s *Server) Shutdown(context.Context, *v1.ShutdownRequest) (*v1.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.containers) + len(s.inits); n > 0 {
		return nil, fmt.Errorf("shut supervisor down: it holds %d containers and pod inits: %w", n, errdefs.ErrFailedPrecondition)
	}
	if !s.stopping {
		s.stopping = true
		for _, l := range s.listeners {
			l.Close()
		}
		close(s.stopped)
	}
	return &v1.Empty{}, nil
}

// Idle reports whether the supervisor holds no container and no pod's first
// process.
func (s *Server) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.containers)+len(s.inits) == 0
}
