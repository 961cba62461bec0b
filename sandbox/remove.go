package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/internal/undo"
)

// RemoveContainer removes a container, which it kills first when it runs. An
// unknown container is no error.
func (m *Manager) RemoveContainer(ctx context.Context, containerID string) error {
	c, err := m.findContainer(containerID)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove container: %w", err)
	}
	return m.removeContainerJoined(ctx, c)
}

// removeContainerJoined removes a container, or joins who does.
func (m *Manager) removeContainerJoined(ctx context.Context, c *container) error {
	id := c.get().ID
	_, err := m.join(ctx, work{
		key:  "remove container " + id,
		what: "remove container " + id, verb: "remove container", pod: c.get().PodID, container: id,
		do: func(ctx context.Context, op *operation) (string, error) {
			return "", m.removeContainer(ctx, op, c)
		},
	})
	return err
}

// removeContainer is the sequence. Nothing of it is undone: it is repeated by
// whoever asks again, and the record goes last.
func (m *Manager) removeContainer(ctx context.Context, op *operation, c *container) error {
	if err := m.stopContainer(ctx, c, 0); err != nil {
		return err
	}
	if err := acquire(ctx, c.busy); err != nil {
		return err
	}
	defer c.busy.release()
	s := c.get()
	if _, err := m.findContainer(s.ID); err != nil {
		return nil
	}
	if s.State.alive() {
		return fmt.Errorf("it was started again: %w", errdefs.ErrFailedPrecondition)
	}
	err := undo.Sequence{Name: "remove", Stage: op.at, Steps: []undo.Step{
		{Name: "process", Do: func(ctx context.Context) error { return m.forget(ctx, s) }},
		{Name: "mounts", Do: func(ctx context.Context) error { return m.removeViews(ctx, s) }},
		{Name: "directory", Do: func(context.Context) error { return m.removeContainerDir(s.ID) }},
		{Name: "checkpoint", Do: func(context.Context) error { return m.removeRestore(s) }},
		{Name: "snapshot", Do: func(ctx context.Context) error {
			return m.removeSnapshot(ctx, s)
		}},
		{Name: "record", Do: func(context.Context) error { return m.deleteContainer(c) }},
	}}.Run(ctx)
	if err != nil {
		return err
	}
	m.dropContainer(s.ID, c.pod)
	c.announceEnd()
	m.usage.drop(s.ID)
	m.publish(EventDeleted, s.ID, c.pod)
	m.deps.Recorder.Note(recorder.Entry{Kind: recorder.KindGone, Pod: s.PodID, Container: s.ID, By: recorder.Caller(ctx)})
	return nil
}

// removeSnapshot removes the container's own layer, which one on a folder of
// the host does not have.
func (m *Manager) removeSnapshot(ctx context.Context, s *containerState) error {
	if s.SnapshotKey == "" {
		return nil
	}
	return ignoreNotFound(m.deps.Snapshots.Remove(ctx, s.SnapshotKey))
}

// forget deletes what the supervisor holds of an exited container, which one
// that could not be started may have left there. One that nobody ever started is
// not known there.
func (m *Manager) forget(ctx context.Context, s *containerState) error {
	if s.State == ContainerCreated {
		return nil
	}
	sup, err := m.supervisor()
	if err != nil {
		return err
	}
	_, err = sup.Delete(ctx, s.ID)
	return unsaid(err, "delete container "+s.ID)
}
