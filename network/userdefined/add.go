package userdefined

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/network/netns"
)

// Add makes a pod a member of the networks of its Membership. A nil error means
// that it is on all of them, that its ports are published, and that it can ask
// for names; on an error nothing is left, or what is left is recorded and Del
// will try again. The result is that of the first network.
func (m *Manager) Add(ctx context.Context, a network.Attachment) (*network.Result, error) {
	unlock, err := m.lockPod(ctx, a.PodID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if m.member(a.PodID) != nil {
		return nil, fmt.Errorf("networks of pod %s: it is a member already: %w", a.PodID, errdefs.ErrAlreadyExists)
	}
	p := &member{PodID: a.PodID, NetNS: a.NetNS, Making: true, OnNode: a.Membership.Node, Servers: a.Membership.Servers, Ports: a.Ports}
	err = undo.Sequence{Name: "usernet.add", Steps: []undo.Step{
		{
			Name: "intent", Plain: true,
			Do:   func(context.Context) error { return m.save(p) },
			Undo: func(ctx context.Context) error { return m.leaveAll(ctx, p.PodID) },
		},
		{Name: "loopback", Plain: true, Do: func(context.Context) error { return netns.LoopbackUp(a.NetNS) }},
		{Name: "endpoints", Plain: true, Do: func(ctx context.Context) error {
			for _, spec := range a.Membership.Endpoints {
				if p, err = m.connect(ctx, p, spec); err != nil {
					return err
				}
			}
			return nil
		}},
		{Name: "names", Plain: true, Do: func(context.Context) (err error) {
			p, err = m.serve(p)
			return err
		}},
		{Name: "record", Plain: true, Do: func(context.Context) error {
			p = p.clone()
			p.Making = false
			return m.save(p)
		}},
	}}.Run(ctx)
	if err != nil {
		return nil, err
	}
	return p.result(), nil
}

// result is that of the first endpoint.
func (p *member) result() *network.Result {
	if len(p.Endpoints) == 0 {
		return &network.Result{Interface: network.InterfaceName, Network: "none"}
	}
	e := p.Endpoints[0]
	r := &network.Result{
		Network: e.Title, Interface: e.Interface, HostInterface: e.HostInterface, MAC: e.HardwareAddr, Gateway: e.Gateway4,
	}
	if !r.Gateway.IsValid() {
		r.Gateway = e.Gateway6
	}
	for _, addr := range []netip.Prefix{e.Addr4, e.Addr6} {
		if addr.IsValid() {
			r.Addresses = append(r.Addresses, addr)
		}
	}
	return r
}

// connect makes an endpoint of a member, whose lock the caller has: recorded
// before it is made, and recorded again when it is whole. On an error nothing
// of the endpoint is left, unless it is recorded.
func (m *Manager) connect(ctx context.Context, p *member, spec network.EndpointSpec) (*member, error) {
	e, n, err := m.join(p, spec)
	if err != nil {
		return p, err
	}
	next := p.without(n.ID)
	next.Endpoints = append(next.Endpoints, *e)
	err = undo.Sequence{Name: "usernet.connect", Steps: []undo.Step{
		{
			Name: "intent", Plain: true,
			Do: func(context.Context) error { return m.save(next) },
			Undo: func(ctx context.Context) error {
				// The record stays as long as anything does that it tells of.
				if err := (&attaching{m, n, next, e}).unwire(ctx); err != nil {
					return err
				}
				return m.save(p)
			},
		},
		{Name: "wire", Plain: true, Do: func(ctx context.Context) error {
			// It may have been removed since it was looked up.
			if _, err := m.Find(n.ID); err != nil {
				return err
			}
			return (&attaching{m, n, next, e}).wire(ctx)
		}},
		{Name: "routes", Plain: true, Do: func(ctx context.Context) error {
			wired := *e
			wired.State = endpointWired
			next = next.without(n.ID)
			next.Endpoints = append(next.Endpoints, wired)
			if err := m.settleRoutes(next); err != nil {
				return err
			}
			return m.settlePorts(ctx, next)
		}},
		{Name: "record", Plain: true, Do: func(context.Context) error { return m.save(next) }},
	}}.Run(ctx)
	if err != nil {
		return p, errors.Join(err, m.settleAgain(p))
	}
	return next, nil
}

// settleAgain puts routes right after a failed change.
func (m *Manager) settleAgain(p *member) error {
	if len(p.Endpoints) == 0 && !p.OnNode {
		return nil
	}
	return m.settleRoutes(p)
}

// disconnect takes an endpoint of a member away. It is recorded before, and the
// record dropped after; what fails can be repeated.
func (m *Manager) disconnect(ctx context.Context, p *member, networkID string) (*member, error) {
	e := p.endpoint(networkID)
	if e == nil {
		return p, nil
	}
	next := p.clone()
	e = next.endpoint(networkID)
	n, known := m.anyState(networkID)
	if e.State == endpointGone || !known {
		next = next.without(networkID)
		return next, m.save(next)
	}
	e.State = endpointLeaving
	leaving := *e
	if err := m.save(next); err != nil {
		return p, err
	}
	if err := (&attaching{m, n, next, &leaving}).unwire(ctx); err != nil {
		return next, err
	}
	rest := next.without(networkID)
	return rest, m.settle(ctx, rest)
}

// settle brings routes and ports of a member in order, and records it.
func (m *Manager) settle(ctx context.Context, p *member) error {
	living, err := netns.Living(p.NetNS)
	if err == nil && living != "" {
		err = m.settleRoutes(p)
		if err == nil {
			err = m.settlePorts(ctx, p)
		}
	}
	return errors.Join(err, m.save(p))
}

// anyState gives a network also while it is removed.
func (m *Manager) anyState(id string) (Network, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.networks[id]
	if n == nil {
		return Network{}, false
	}
	return *n, true
}

// abandon takes a member that does not run off a network that is about to go,
// and remembers that it was on it.
func (m *Manager) abandon(ctx context.Context, podID, networkID string) error {
	unlock, err := m.lockPod(ctx, podID)
	if err != nil {
		return err
	}
	defer unlock()
	p := m.member(podID)
	if p == nil || p.endpoint(networkID) == nil {
		return nil
	}
	at := slices.IndexFunc(p.Endpoints, func(e endpoint) bool { return e.Network == networkID })
	gone := p.Endpoints[at]
	rest, err := m.disconnect(ctx, p, networkID)
	if err != nil {
		return err
	}
	next := rest.clone()
	gone = endpoint{EndpointSpec: gone.EndpointSpec, ID: gone.ID, State: endpointGone, Title: gone.Title}
	next.Endpoints = slices.Insert(next.Endpoints, at, gone)
	return m.save(next)
}
