package userdefined

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/network"
)

// Pod is a pod that joins or leaves a network while it is there.
type Pod struct {
	ID string
	// NetNS is the path of its pinned network namespace.
	NetNS string
	// OnNode says that it was made on the node's own network; only asked of
	// a pod that is no member yet.
	OnNode bool
	// Servers and Ports are as in the pod's Membership and Attachment.
	Servers []netip.Addr
	Ports   []network.PortMapping
}

// memberOf gives a pod's record, or what it would begin with. The caller has
// the pod's lock.
func (m *Manager) memberOf(pod Pod) *member {
	if p := m.member(pod.ID); p != nil {
		return p
	}
	return &member{PodID: pod.ID, NetNS: pod.NetNS, OnNode: pod.OnNode, Servers: pod.Servers, Ports: pod.Ports}
}

// Connect puts a pod on a further network. On an error it is as before.
func (m *Manager) Connect(ctx context.Context, pod Pod, spec network.EndpointSpec) error {
	unlock, err := m.lockPod(ctx, pod.ID)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := m.connect(ctx, m.memberOf(pod), spec)
	if err != nil {
		if left := m.member(pod.ID); left != nil {
			m.tidy(left)
		}
		return err
	}
	served, err := m.serve(p)
	if err == nil && served != p {
		err = m.save(served)
	}
	if err != nil {
		n, failed := m.Find(spec.Network)
		if failed == nil {
			p, _ = m.disconnect(ctx, p, n.ID)
			m.tidy(p)
		}
		return err
	}
	return nil
}

// tidy forgets a member that is on no network but the node's, where it was made.
func (m *Manager) tidy(p *member) {
	if len(p.Endpoints) > 0 {
		return
	}
	m.stopServing(p.PodID)
	if p.OnNode && p.Node == nil {
		if err := m.forget(p.PodID); err != nil {
			m.log.WithError(err).Warn("a record stays")
		}
	}
}

// Disconnect takes a pod off a network. It is an error of kind ErrNotFound when
// it was not on it.
func (m *Manager) Disconnect(ctx context.Context, podID, name string) error {
	n, err := m.Find(name)
	if err != nil {
		return err
	}
	unlock, err := m.lockPod(ctx, podID)
	if err != nil {
		return err
	}
	defer unlock()
	p := m.member(podID)
	if p == nil || p.endpoint(n.ID) == nil {
		return worded(errdefs.ErrNotFound, "container is not connected to network %s", n.Name)
	}
	p, err = m.disconnect(ctx, p, n.ID)
	if err != nil {
		return fmt.Errorf("disconnect from network %s: %w", n.Name, err)
	}
	m.tidy(p)
	return nil
}

// ConnectNode puts a pod on the node's own network, of which a is what the
// network is told.
func (m *Manager) ConnectNode(ctx context.Context, pod Pod, a network.Attachment) error {
	unlock, err := m.lockPod(ctx, pod.ID)
	if err != nil {
		return err
	}
	defer unlock()
	p := m.memberOf(pod).clone()
	if p.OnNode {
		return worded(errdefs.ErrPermissionDenied, "endpoint already exists in network bridge")
	}
	a.Interface = p.freeInterface()
	for _, e := range p.Endpoints {
		if e.Publishing {
			a.Ports = nil
		}
	}
	p.Node = &a
	if err := m.save(p); err != nil {
		return err
	}
	if _, err = m.cfg.Node.Add(ctx, a); err == nil {
		next := p.clone()
		next.OnNode = true
		if err = m.settle(ctx, next); err == nil {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undo.DefaultTimeout)
	defer cancel()
	if failed := m.recoverNode(ctx, p); failed != nil {
		m.log.WithError(failed).Warn("the node's network keeps what a pod has no more")
	}
	return err
}

// DisconnectNode takes a pod off the node's own network.
func (m *Manager) DisconnectNode(ctx context.Context, pod Pod, a network.Attachment) error {
	unlock, err := m.lockPod(ctx, pod.ID)
	if err != nil {
		return err
	}
	defer unlock()
	p := m.memberOf(pod).clone()
	if !p.OnNode {
		return worded(errdefs.ErrNotFound, "container is not connected to network bridge")
	}
	if p.Node == nil {
		p.Node = &a
	}
	p.OnNode = false
	if err := m.save(p); err != nil {
		return err
	}
	return m.recoverNode(ctx, p)
}

// recoverNode takes a member off the node's network that is half on it.
func (m *Manager) recoverNode(ctx context.Context, p *member) error {
	if p.Node == nil || p.OnNode {
		return nil
	}
	if err := m.cfg.Node.Del(ctx, *p.Node); err != nil {
		return err
	}
	next := p.clone()
	next.Node, next.OnNode = nil, false
	return m.settle(ctx, next)
}
