package nodeapi

import (
	"context"
	"slices"
	"strings"
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
	return &nodev1.WaitResponse{ExitCode: personExit(c)}, nil
}

// reasonStartError is that of a container that could not be started.
const reasonStartError = "StartError"

// personExit is a container's exit code; of one that could not be started it is docker's in place of CRI's.
func personExit(c sandbox.Container) int32 {
	if c.Reason != reasonStartError || c.Owner != sandbox.OwnerNodectl {
		return int32(c.ExitCode)
	}
	for _, kind := range []struct {
		code  int32
		words []string
	}{
		{127, []string{"executable file not found", "no such file or directory"}},
		{126, []string{"permission denied", "is a directory", "not a directory", "exec format error"}},
	} {
		if slices.ContainsFunc(kind.words, func(word string) bool { return strings.Contains(c.Message, word) }) {
			return kind.code
		}
	}
	return int32(c.ExitCode)
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
