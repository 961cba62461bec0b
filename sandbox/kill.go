package sandbox

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

// KillContainer sends a signal, such as "SIGHUP", "HUP" or "1", to the
// container's first process, and SIGKILL to all of them.
func (m *Manager) KillContainer(ctx context.Context, containerID string, signal string) error {
	c, err := m.findContainer(containerID)
	if err != nil {
		return fmt.Errorf("kill container: %w", err)
	}
	s := c.get()
	sig, err := parseSignal(signal)
	if err == nil && !s.State.alive() {
		err = fmt.Errorf("it is %s: %w", s.State, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return fmt.Errorf("kill container %s: %w", s.ID, err)
	}
	sup, err := m.supervisor()
	if err == nil {
		at := time.Now()
		err = sup.Signal(ctx, s.ID, sig, sig == syscall.SIGKILL)
		m.noteSignal(s, sig, at, recorder.Caller(ctx), err)
	}
	if err != nil {
		return fmt.Errorf("kill container %s: %w", s.ID, unsaid(err, "signal container "+s.ID))
	}
	return nil
}
