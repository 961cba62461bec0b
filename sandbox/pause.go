package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// PauseContainer freezes a running container; one that is paused stays so.
func (m *Manager) PauseContainer(ctx context.Context, containerID string) error {
	return m.setPaused(ctx, "pause", containerID, ContainerPaused, Supervisor.Pause)
}

// ResumeContainer lets a paused container go on; one that runs stays so.
func (m *Manager) ResumeContainer(ctx context.Context, containerID string) error {
	return m.setPaused(ctx, "resume", containerID, ContainerRunning, Supervisor.Resume)
}

// setPaused brings a container to a state by do. What the record says is put
// right at the next start if the agent is killed in between.
func (m *Manager) setPaused(ctx context.Context, verb, id string, want ContainerState,
	do func(Supervisor, context.Context, string) error) error {
	c, err := m.findContainer(id)
	if err != nil {
		return fmt.Errorf("%s container: %w", verb, err)
	}
	id = c.get().ID
	if err := acquire(ctx, c.busy); err != nil {
		return fmt.Errorf("%s container %s: %w", verb, id, err)
	}
	defer c.busy.release()
	switch s := c.get(); s.State {
	case want:
		return nil
	case ContainerRunning, ContainerPaused:
	default:
		return fmt.Errorf("%s container %s: it is %s: %w", verb, id, s.State, errdefs.ErrFailedPrecondition)
	}
	sup, err := m.supervisor()
	if err == nil {
		err = unsaid(do(sup, ctx, id), verb+" container "+id)
	}
	if err == nil {
		err = m.changeContainer(c, func(s *containerState) { s.State = want })
	}
	if err != nil {
		return fmt.Errorf("%s container %s: %w", verb, id, err)
	}
	return nil
}
