package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/undo"
)

// StopPod kills the pod's containers and gives back its network, namespaces
// and cgroup. What fails is tried again in the background until it is done;
// the pod is listed all the while. An unknown or stopped pod is no error.
func (m *Manager) StopPod(ctx context.Context, podID string) error {
	p, err := m.findPod(podID)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop pod: %w", err)
	}
	if p.get().State == PodNotReady {
		return nil
	}
	return m.stopPodJoined(ctx, p)
}

// stopPodJoined stops a pod, or joins who does.
func (m *Manager) stopPodJoined(ctx context.Context, p *pod) error {
	id := p.get().ID
	_, err := m.join(ctx, work{
		key:  "stop pod " + id,
		what: "stop pod " + id, verb: "stop pod", pod: id,
		do: func(ctx context.Context, op *operation) (string, error) {
			err := m.stopPod(ctx, op, p)
			if err != nil {
				m.finishStop(p)
			}
			return "", err
		},
	})
	return err
}

// finishStop sees to it that a stop that was begun is finished.
func (m *Manager) finishStop(p *pod) {
	if p.get().State != PodStopping || !p.retrying.CompareAndSwap(false, true) {
		return
	}
	m.background("stop pod "+p.get().ID, func(ctx context.Context) error {
		if p.get().State == PodStopping {
			if err := m.stopPodJoined(ctx, p); err != nil {
				return err
			}
		}
		p.retrying.Store(false)
		m.finishStop(p) // of one that failed just now
		return nil
	})
}

func (m *Manager) stopPod(ctx context.Context, op *operation, p *pod) error {
	if err := acquire(ctx, p.standing); err != nil {
		return err
	}
	defer p.standing.release()
	return m.stopStanding(ctx, op, p)
}

// stopStanding is the sequence, with standing held. Nothing of it is undone:
// each step is idempotent, and the whole is repeated until it succeeds.
func (m *Manager) stopStanding(ctx context.Context, op *operation, p *pod) error {
	if p.get().State == PodNotReady {
		return nil
	}
	err := undo.Sequence{Name: "stop", Stage: op.at, Steps: []undo.Step{
		{Name: "record stopping", Do: func(context.Context) error {
			return m.changePod(p, func(s *podState) { s.State = PodStopping })
		}},
		{Name: "containers", Do: func(ctx context.Context) error { return m.killAll(ctx, p) }},
		{Name: "init", Do: func(ctx context.Context) error { return m.stopPodInit(ctx, p.get()) }},
		{Name: "network", Do: func(ctx context.Context) error { return m.releaseNetwork(ctx, p) }},
		{Name: "namespaces", Do: func(context.Context) error { return m.releaseNamespaces(p.get()) }},
		{Name: "cgroup", Do: func(ctx context.Context) error { return m.releaseCgroup(ctx, p.get()) }},
		{Name: "record", Do: func(context.Context) error {
			return m.changePod(p, func(s *podState) { s.State, s.PID, s.NetNS = PodNotReady, 0, "" })
		}},
	}}.Run(ctx)
	if err != nil {
		return err
	}
	m.publish(EventStopped, p.get().ID, p)
	return nil
}

// killAll kills all containers side by side and waits for their ends.
func (m *Manager) killAll(ctx context.Context, p *pod) error {
	list := m.children(p)
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, c := range list {
		wg.Go(func() {
			if err := m.stopContainer(ctx, c, 0); err != nil {
				errs[i] = fmt.Errorf("container %s: %w", c.get().ID, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// releaseNetwork gives the pod's addresses back, also when its namespace is
// gone, and notes that it did.
func (m *Manager) releaseNetwork(ctx context.Context, p *pod) error {
	s := p.get()
	if s.NetNS == "" || s.NetworkGone {
		return nil
	}
	if err := m.deps.Network.Del(ctx, s.attachment()); err != nil {
		return err
	}
	return m.changePod(p, func(s *podState) { s.NetworkGone, s.Network = true, nil })
}

func (m *Manager) releaseNamespaces(s *podState) error {
	return errors.Join(m.ns.Unmount(m.shmDir(s.ID)), m.ns.Unpin(m.nsDir(s.ID)))
}

func (m *Manager) releaseCgroup(ctx context.Context, s *podState) error {
	if !s.OwnsCgroup {
		return nil
	}
	return m.deps.Cgroups.Remove(ctx, s.CgroupPath)
}

// clearPod takes away all of a pod that was never ready, and its intent last.
func (m *Manager) clearPod(ctx context.Context, s *podState) error {
	err := m.stopPodInit(ctx, s)
	if s.NetNS != "" {
		err = errors.Join(err, m.deps.Network.Del(ctx, s.attachment()))
	}
	err = errors.Join(err, m.removePodDir(s.ID), m.releaseCgroup(ctx, s))
	if err != nil {
		return fmt.Errorf("undo pod %s: %w", s.ID, err)
	}
	return m.podRecords.Delete(s.ID)
}
