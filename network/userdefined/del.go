package userdefined

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

// Del takes a pod off all networks. A nil error means that it has nothing of
// them any more, also when it never had.
func (m *Manager) Del(ctx context.Context, podID string) error {
	if m.member(podID) == nil {
		return nil
	}
	unlock, err := m.lockPod(ctx, podID)
	if err != nil {
		return err
	}
	defer unlock()
	return m.leaveAll(ctx, podID)
}

// leaveAll is Del with the pod's lock held.
func (m *Manager) leaveAll(ctx context.Context, podID string) error {
	p := m.member(podID)
	if p == nil {
		return nil
	}
	m.stopServing(podID)
	var errs []error
	for _, e := range p.Endpoints {
		n, known := m.anyState(e.Network)
		if !known || e.State == endpointGone {
			continue
		}
		if err := (&attaching{m, n, p, &e}).unwire(ctx); err != nil {
			errs = append(errs, fmt.Errorf("take pod %s off network %s: %w", podID, n.Name, err))
		}
	}
	if p.Node != nil {
		errs = append(errs, m.cfg.Node.Del(ctx, *p.Node))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return m.forget(podID)
}

// Recover brings records and host together. keep are the pods there are; every
// other member, network half made or half removed, address and rule that
// belongs to nobody is taken away; links and rules that others took away are
// made again. It goes on past failures and returns all of them. Only the first
// call does anything: later, what looks half made may be under way.
func (m *Manager) Recover(ctx context.Context, keep map[string]bool) error {
	m.mu.Lock()
	again := m.recovered
	m.recovered = true
	m.mu.Unlock()
	if again {
		return nil
	}
	errs := []error{m.recoverMembers(ctx, keep), m.recoverNetworks(ctx), m.recoverRules()}
	m.mu.RLock()
	var members []*member
	for _, p := range m.members {
		members = append(members, p)
	}
	m.mu.RUnlock()
	for _, p := range members {
		for i := range p.Endpoints {
			n, known := m.anyState(p.Endpoints[i].Network)
			if !known {
				continue
			}
			if err := (&attaching{m, n, p, &p.Endpoints[i]}).restore(ctx); err != nil {
				errs = append(errs, fmt.Errorf("restore pod %s on network %s: %w", p.PodID, n.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// recoverMembers drops members whose pods are gone, and undoes what was half
// made of the others.
func (m *Manager) recoverMembers(ctx context.Context, keep map[string]bool) error {
	m.mu.RLock()
	var ids []string
	for id := range m.members {
		ids = append(ids, id)
	}
	m.mu.RUnlock()
	var errs []error
	for _, id := range ids {
		p := m.member(id)
		if !keep[id] || p.Making {
			errs = append(errs, m.Del(ctx, id))
			continue
		}
		errs = append(errs, m.recoverMember(ctx, id))
	}
	return errors.Join(errs...)
}

func (m *Manager) recoverMember(ctx context.Context, podID string) error {
	unlock, err := m.lockPod(ctx, podID)
	if err != nil {
		return err
	}
	defer unlock()
	p := m.member(podID)
	if p == nil {
		return nil
	}
	for _, e := range p.Endpoints {
		if e.State != endpointMaking && e.State != endpointLeaving {
			continue
		}
		if p, err = m.disconnect(ctx, p, e.Network); err != nil {
			return fmt.Errorf("undo pod %s on network %s: %w", podID, e.Title, err)
		}
	}
	if err := m.recoverNode(ctx, p); err != nil {
		return err
	}
	if p = m.member(podID); p != nil {
		m.tidy(p)
	}
	return nil
}

// recoverNetworks undoes networks that are half made or half removed, makes the
// links of the others, and gives back addresses that no member has.
func (m *Manager) recoverNetworks(ctx context.Context) error {
	m.mu.RLock()
	var all []Network
	holders := map[string][]types.GCAttachment{}
	for _, n := range m.networks {
		all = append(all, *n)
	}
	for _, p := range m.members {
		for _, e := range p.Endpoints {
			holders[e.Network] = append(holders[e.Network], types.GCAttachment{ContainerID: containerID(p.PodID), IfName: e.Interface})
		}
	}
	m.mu.RUnlock()
	var errs []error
	for _, n := range all {
		switch n.State {
		case Ready:
			errs = append(errs, m.ensureLink(&n), m.sweepAddresses(ctx, n, holders[n.ID]))
		default:
			err := m.removeLink(n)
			if err == nil {
				err = m.drop(n)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
