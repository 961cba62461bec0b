package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
)

// RevivePod makes one of nodectl's pods ready again that did not survive a
// reboot: a person's container can be started for as long as it is not
// removed. A ready pod is left alone.
func (m *Manager) RevivePod(ctx context.Context, podID string) error {
	p, err := m.findPod(podID)
	if err != nil {
		return fmt.Errorf("revive pod: %w", err)
	}
	s := p.get()
	if s.State == PodReady {
		return nil
	}
	if s.Owner != OwnerNodectl {
		return fmt.Errorf("revive pod %s: it is %s, and not nodectl's: %w", s.ID, s.State, errdefs.ErrFailedPrecondition)
	}
	// One that is still being stopped is stopped to the end first.
	if err := m.StopPod(ctx, s.ID); err != nil {
		return fmt.Errorf("revive pod %s: %w", s.ID, unsaid(err, "stop pod "+s.ID))
	}
	_, err = m.join(ctx, work{
		key: "revive pod " + s.ID, what: "revive pod " + s.ID, verb: "revive pod", pod: s.ID,
		do: func(ctx context.Context, op *operation) (string, error) { return "", m.revivePod(ctx, op, p) },
	})
	return err
}

// revivePod is the sequence. Its intent is a pod that is being stopped: an
// agent that is killed meanwhile, and a failure, give back what was made.
func (m *Manager) revivePod(ctx context.Context, op *operation, p *pod) error {
	if err := acquire(ctx, p.standing); err != nil {
		return err
	}
	plan := *p.get()
	if plan.State != PodNotReady {
		p.standing.release()
		return nil
	}
	plan.BootID, plan.Network, plan.NetworkGone, plan.PID = m.bootID, nil, false, 0
	if slices.Contains(plan.Own, namespace.Net) {
		plan.NetNS = filepath.Join(m.nsDir(plan.ID), string(namespace.Net))
	}
	r := &podRun{Manager: m, podState: &plan}
	err := undo.Sequence{Name: "revive", Stage: op.at, Steps: []undo.Step{
		{Name: "intent", Do: func(context.Context) error {
			return m.changePod(p, func(s *podState) { *s = plan; s.State = PodStopping })
		}},
		{Name: "directory", Do: func(ctx context.Context) error {
			return errors.Join(m.removePodDir(plan.ID), os.Mkdir(m.podDir(plan.ID), 0o700))
		}},
		undo.Together("namespaces",
			undo.Step{Name: "namespaces", Do: r.pinNamespaces},
			undo.Step{Name: "cgroup", Do: r.makeCgroup},
			undo.Step{Name: "shm", Do: r.mountShm},
		),
		undo.Together("network",
			undo.Step{Name: "network", Do: r.addNetwork},
			undo.Step{Name: "init", Do: r.startInit},
		),
		{Name: "files", Do: r.writeFiles},
		{Name: "record", Do: func(context.Context) error {
			return m.changePod(p, func(s *podState) {
				*s = plan
				s.State = PodReady
			})
		}},
	}}.Run(ctx)
	p.standing.release()
	if err != nil {
		m.finishStop(p)
	}
	return err
}
