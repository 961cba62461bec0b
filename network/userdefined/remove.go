package userdefined

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/undo"
)

// Remove removes a network that no running container is on; one that does not
// run loses its place on it. A nil error means that nothing of it is left.
func (m *Manager) Remove(ctx context.Context, name string) (Network, error) {
	if Predefined(name) {
		return Network{}, worded(errdefs.ErrPermissionDenied, "%s is a pre-defined network and cannot be removed", name)
	}
	select {
	case m.making <- struct{}{}:
		defer func() { <-m.making }()
	case <-ctx.Done():
		return Network{}, fmt.Errorf("remove network %s: another one is being made: %w", name, ctx.Err())
	}
	n, idle, err := m.claim(name)
	if err != nil {
		return Network{}, err
	}
	for _, pod := range idle {
		if err := m.abandon(ctx, pod, n.ID); err != nil {
			m.release(n)
			return Network{}, fmt.Errorf("error while removing network: %w", err)
		}
	}
	return n, m.remove(ctx, n)
}

// claim keeps everybody from joining the network, and says which members do not
// run. The error tells who is on it.
func (m *Manager) claim(name string) (n Network, idle []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, err := m.findLocked(name)
	if err != nil {
		return Network{}, nil, err
	}
	var active []string
	for _, p := range m.members {
		e := p.endpoint(found.ID)
		if e == nil || e.State == endpointGone {
			continue
		}
		names := m.namesLocked(p.PodID)
		if len(names) == 0 && m.names != nil {
			idle = append(idle, p.PodID)
			continue
		}
		who := p.PodID[:min(len(p.PodID), shortID)]
		if len(names) > 0 {
			who = names[0]
		}
		active = append(active, fmt.Sprintf("name:%q id:%q", who, e.ID[:shortID]))
	}
	if len(active) > 0 {
		return Network{}, nil, worded(errdefs.ErrPermissionDenied,
			"error while removing network: network %s has active endpoints (%s)", found.Name, strings.Join(active, ", "))
	}
	removing := *found
	removing.State = Removing
	m.networks[found.ID] = &removing
	return removing, idle, nil
}

// release is the undo of claim.
func (m *Manager) release(n Network) {
	n.State = Ready
	m.mu.Lock()
	defer m.mu.Unlock()
	m.networks[n.ID] = &n
}

// remove takes a claimed network away. What fails is tried again at the next
// start, or when it is asked for again.
func (m *Manager) remove(ctx context.Context, n Network) error {
	err := undo.Sequence{Name: "usernet.remove", Steps: []undo.Step{
		{Name: "record removing", Plain: true, Do: func(context.Context) error { return m.put(n) }},
		{Name: "link", Plain: true, Do: func(context.Context) error { return m.removeLink(n) }},
		{Name: "record", Plain: true, Do: func(context.Context) error { return m.drop(n) }},
	}}.Run(ctx)
	if err != nil {
		m.release(n)
		return fmt.Errorf("error while removing network: %w", err)
	}
	return nil
}
