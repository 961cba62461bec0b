package nodeapi

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/types/known/durationpb"
)

// defaultStopTimeout is how long stop waits before it kills, as docker does.
const defaultStopTimeout = 10 * time.Second

// Stop asks a container to end, then kills it.
func (s *containers) Stop(ctx context.Context, req *nodev1.StopRequest) (*nodev1.StopResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	if err := s.stop(ctx, c, req.GetTimeout(), req.GetSignal()); err != nil {
		return nil, err
	}
	return &nodev1.StopResponse{}, nil
}

// stop stops a container for a person. An unset timeout and an empty signal
// are the container's own.
func (s *Server) stop(ctx context.Context, c sandbox.Container, timeout *durationpb.Duration, signal string) error {
	if signal != "" {
		var err error
		if signal, err = normalSignal(signal); err != nil {
			return err
		}
	}
	// One that does not run may be about to be started again.
	if err := s.stoppedByPerson(c); err != nil || (!running(c) && !s.stoppable(c)) {
		return err
	}
	wait := stopTimeoutOf(s.specOf(c))
	if timeout != nil {
		wait = timeout.AsDuration()
	}
	name := signal
	if name == "" {
		name = c.StopSignal
	}
	ran := running(c)
	if ran {
		s.emitContainer("kill", c, "signal", signalText(name))
	}
	if signal != "" && ran && wait > 0 {
		began := time.Now()
		ended, err := s.askToEnd(ctx, c, signal, wait)
		if err != nil || ended {
			return s.stopped(c, err, ran)
		}
		wait = max(wait-time.Since(began), 0)
	}
	defer s.tellKill(c, wait)()
	return s.stopped(c, s.sandboxes.StopContainer(ctx, c.ID, wait), ran)
}

// tellKill tells that a container is killed if it runs on after wait. The
// caller calls what it returns once the container has ended.
func (s *Server) tellKill(c sandbox.Container, wait time.Duration) (ended func()) {
	tell := func() {
		if now, err := s.sandboxes.Container(c.ID); err == nil && running(now) {
			s.emitContainer("kill", now, "signal", signalText("SIGKILL"))
		}
	}
	if wait <= 0 {
		tell()
		return func() {}
	}
	timer := time.AfterFunc(wait, tell)
	return func() { timer.Stop() }
}

// stoppable says whether stopping may do something for a container that does
// not run: its policy may be starting it.
func (s *Server) stoppable(c sandbox.Container) bool {
	return c.State == sandbox.ContainerExited && hasPolicy(s.specOf(c))
}

// stopped tells of a stop.
func (s *Server) stopped(c sandbox.Container, err error, ran bool) error {
	if err != nil || !ran {
		return err
	}
	if now, err := s.sandboxes.Container(c.ID); err == nil {
		s.tellEnd(now)
	}
	s.emitContainer("stop", c)
	return nil
}

// askToEnd sends a signal and waits for the container's end.
func (s *Server) askToEnd(ctx context.Context, c sandbox.Container, signal string, wait time.Duration) (ended bool, err error) {
	if err := s.sandboxes.KillContainer(ctx, c.ID, signal); err != nil && !errdefs.IsFailedPrecondition(err) {
		return false, err
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_, err = s.sandboxes.WaitContainer(bounded, c.ID)
	if err != nil && bounded.Err() != nil {
		return false, ctx.Err()
	}
	return err == nil, err
}

// stopTimeoutOf is how long stop waits for a container.
func stopTimeoutOf(spec *nodev1.ContainerSpec) time.Duration {
	if own := spec.GetStopTimeout(); own != nil {
		return own.AsDuration()
	}
	return defaultStopTimeout
}
