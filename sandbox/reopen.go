package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// ReopenLog makes the container's log go on in a new file at its path. The
// container must run.
func (m *Manager) ReopenLog(ctx context.Context, containerID string) error {
	c, err := m.findContainer(containerID)
	if err != nil {
		return fmt.Errorf("reopen log: %w", err)
	}
	s := c.get()
	if !s.State.alive() {
		return fmt.Errorf("reopen log of container %s: it is %s: %w", s.ID, s.State, errdefs.ErrFailedPrecondition)
	}
	sup, err := m.supervisor()
	if err == nil {
		err = unsaid(sup.ReopenLog(ctx, s.ID), "reopen log of container "+s.ID)
	}
	if err != nil {
		return fmt.Errorf("reopen log of container %s: %w", s.ID, err)
	}
	return nil
}
