package nodeapi

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// Restart stops a container, and starts it again. One that was to remove
// itself stays.
func (s *containers) Restart(ctx context.Context, req *nodev1.RestartRequest) (*nodev1.RestartResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	defer s.hold(c)()
	// Between the stop and the start an agent may be killed. On a full disk that
	// is a risk to take: what is restarted may be what fills it.
	resume := func(on bool) error { return s.changeRun(c, func(r *runRecord) { r.Resume = on }) }
	s.warnOf(c, resume(true), "note that its restart is under way")
	defer func() { s.warnOf(c, resume(false), "note that its restart is over") }()
	if err := s.stop(ctx, c, req.GetTimeout(), req.GetSignal()); err != nil {
		return nil, err
	}
	if err := s.startedByPerson(c); err != nil {
		return nil, err
	}
	if c, err = s.sandboxes.Container(c.ID); err != nil {
		return nil, err
	}
	if _, err := s.start(ctx, c, nil); err != nil {
		return nil, err
	}
	s.emitContainer("restart", c)
	return &nodev1.RestartResponse{}, nil
}
