package sandbox

import (
	"context"
	"fmt"

	"github.com/nodeagent/nodeagent/supervisor"
)

// Reasons of an exit.
const (
	reasonCompleted = "Completed"
	reasonError     = "Error"
	reasonOOM       = "OOMKilled"
	reasonLost      = "SupervisorLost"
	reasonUnknown   = "Unknown"
)

// unknownCode is the exit code of a container whose end nobody saw.
const unknownCode = 255

// exited is runEnded for who has just looked at the container.
func (m *Manager) exited(ctx context.Context, c *container, exit supervisor.Exit) error {
	return m.runEnded(ctx, c, c.get(), exit)
}

// runEnded records that a container ended and cleans up after it. seen is how
// it was when that was learnt, or before. It waits for a start under way, and
// does nothing for what was recorded already, nor for a container that has been
// started again since: the end was that of an earlier run.
func (m *Manager) runEnded(ctx context.Context, c *container, seen *containerState, exit supervisor.Exit) error {
	if err := acquire(ctx, c.busy); err != nil {
		return fmt.Errorf("exit of container %s: %w", c.get().ID, err)
	}
	defer c.busy.release()
	s := c.get()
	if seen.State.alive() && !s.StartedAt.Equal(seen.StartedAt) {
		return nil
	}
	if s.State != ContainerExited {
		if err := m.changeContainer(c, func(s *containerState) { s.end(exit) }); err != nil {
			m.log.WithError(err).Warnf("record exit of container %s", s.ID)
		}
		m.publish(EventStopped, s.ID, c.pod)
		m.noteExit(ctx, c.get(), exit)
	}
	return m.cleanUp(ctx, c)
}

// end writes an exit into a state.
func (s *containerState) end(exit supervisor.Exit) {
	s.State, s.PID, s.ExitCode, s.FinishedAt = ContainerExited, 0, exit.Code, exit.At.Round(0)
	if exit.At.IsZero() {
		s.FinishedAt = now()
	}
	if s.FinishedAt.Before(s.StartedAt) {
		// Clocks may be set back; an end before the start confuses all.
		s.FinishedAt = s.StartedAt
	}
	switch {
	case exit.Reason != "":
		s.Reason = exit.Reason
	case exit.OOMKilled:
		s.Reason = reasonOOM
	case exit.Code == 0:
		s.Reason = reasonCompleted
	default:
		s.Reason = reasonError
	}
}

// cleanUp gives back what only a running container needs: what the
// supervisor holds of it, its cgroup, its mounts. The container's gate is held.
func (m *Manager) cleanUp(ctx context.Context, c *container) error {
	sup, err := m.supervisor()
	if err != nil {
		return err
	}
	id := c.get().ID
	if _, err := sup.Delete(ctx, id); err != nil {
		return fmt.Errorf("delete container %s from the supervisor: %w", id, unsaid(err, "delete container "+id))
	}
	return m.unmountContainer(id)
}
