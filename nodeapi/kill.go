package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// Kill sends a signal to a running container.
func (s *containers) Kill(ctx context.Context, req *nodev1.KillRequest) (*nodev1.KillResponse, error) {
	name := req.GetSignal()
	if name == "" {
		name = "SIGKILL"
	}
	signal, err := normalSignal(name)
	if err != nil {
		return nil, err
	}
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	if !running(c) {
		if s.restarting(c) {
			return &nodev1.KillResponse{}, s.stoppedByPerson(c)
		}
		return nil, failf(errdefs.ErrFailedPrecondition,
			"cannot kill container: %s: container %s is not running", req.GetContainer(), c.ID)
	}
	// A signal that is to end it is a person's wish that it stays so.
	if stop, err := normalSignal(c.StopSignal); signal == "SIGKILL" || err == nil && signal == stop {
		if err := s.stoppedByPerson(c); err != nil {
			return nil, err
		}
	}
	// Told first, so that it is told before the end that it may be.
	s.emitContainer("kill", c, "signal", signalText(signal))
	if err := s.sandboxes.KillContainer(ctx, c.ID, signal); err != nil {
		return nil, err
	}
	return &nodev1.KillResponse{}, nil
}
