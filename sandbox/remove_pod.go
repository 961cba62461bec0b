package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/internal/undo"
)

// RemovePod stops the pod, removes its containers and then itself. An unknown
// pod is no error.
func (m *Manager) RemovePod(ctx context.Context, podID string) error {
	p, err := m.findPod(podID)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove pod: %w", err)
	}
	id := p.get().ID
	if err := m.StopPod(ctx, id); err != nil {
		return fmt.Errorf("remove pod %s: %w", id, unsaid(err, "stop pod "+id))
	}
	_, err = m.join(ctx, work{
		key:  "remove pod " + id,
		what: "remove pod " + id, verb: "remove pod", pod: id,
		do: func(ctx context.Context, op *operation) (string, error) {
			return "", m.removePod(ctx, op, p)
		},
	})
	return err
}

// removePod is the sequence; a failed one is repeated by whoever asks again.
// The record goes last, so that nothing is left that nobody knows of.
func (m *Manager) removePod(ctx context.Context, op *operation, p *pod) error {
	if err := acquire(ctx, p.standing); err != nil {
		return err
	}
	defer p.standing.release()
	if _, err := m.findPod(p.get().ID); err != nil {
		return nil
	}
	// It may have been revived since it was stopped.
	if err := m.stopStanding(ctx, op, p); err != nil {
		m.finishStop(p)
		return err
	}
	s := p.get()
	err := undo.Sequence{Name: "remove pod", Stage: op.at, Steps: []undo.Step{
		{Name: "containers", Do: func(ctx context.Context) error { return m.removeAll(ctx, p) }},
		{Name: "late init", Do: func(ctx context.Context) error { return m.removeLateInit(ctx, s) }},
		{Name: "directory", Do: func(context.Context) error { return m.removePodDir(s.ID) }},
		{Name: "record", Do: func(context.Context) error { return m.deletePod(p) }},
	}}.Run(ctx)
	if err != nil {
		return err
	}
	m.dropPod(s)
	m.usage.drop(s.ID)
	m.publish(EventDeleted, s.ID, p)
	m.deps.Recorder.Note(recorder.Entry{Kind: recorder.KindGone, Pod: s.ID, By: recorder.Caller(ctx)})
	return nil
}

// removeLateInit takes away an init that came after the pod's stop, where the
// agent died before it could.
func (m *Manager) removeLateInit(ctx context.Context, s *podState) error {
	if !m.deps.Cgroups.Exists(m.initCgroup(s)) {
		return nil
	}
	if err := m.killPodInit(ctx, s); err != nil {
		return err
	}
	return m.releaseCgroup(ctx, s)
}

// removeAll removes all containers side by side.
func (m *Manager) removeAll(ctx context.Context, p *pod) error {
	list := m.children(p)
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, c := range list {
		wg.Go(func() { errs[i] = m.removeContainerJoined(ctx, c) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
