package userdefined

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/network"
)

// endpointState is how far an endpoint is.
type endpointState string

// The states of an endpoint. Found at start, those in making and leaving are
// undone; a gone one's network was removed while the pod's container did not
// run.
//
//	making ──▶ wired ──▶ leaving ──▶ (no more)
//	              └──▶ gone
const (
	endpointMaking  endpointState = "making"
	endpointWired   endpointState = "wired"
	endpointLeaving endpointState = "leaving"
	endpointGone    endpointState = "gone"
)

// member is a pod as it is recorded. One in the Manager's map is never changed,
// only replaced.
type member struct {
	PodID string
	// NetNS is the path of its pinned network namespace.
	NetNS string
	// Making says that the pod's Add has not returned.
	Making bool
	// Node is the attachment of a member that is on the node's own network
	// by its own choice; OnNode that it is on it at all.
	Node   *network.Attachment
	OnNode bool
	// Endpoints are in the order they were asked for.
	Endpoints []endpoint
	// Servers are asked for the names of others.
	Servers []netip.Addr
	// Ports are published by the first endpoint that can.
	Ports []network.PortMapping
	// UDP and TCP are the ports of the server of names.
	UDP, TCP uint16
}

// endpoint is a member's place on a network.
type endpoint struct {
	network.EndpointSpec
	// ID is 64 hexadecimal digits.
	ID    string
	State endpointState
	// Title is the network's name.
	Title string
	// Interface is the one in the pod; HostInterface the host's end.
	Interface, HostInterface string
	HardwareAddr             string
	Addr4, Addr6             netip.Prefix
	Gateway4, Gateway6       netip.Addr
	// Result is the bridge plugin's.
	Result json.RawMessage `json:",omitempty"`
	// Publishing says that the member's ports lead here.
	Publishing bool
}

// endpoint is the member's place on a network; nil when it has none.
func (p *member) endpoint(networkID string) *endpoint {
	for i := range p.Endpoints {
		if p.Endpoints[i].Network == networkID {
			return &p.Endpoints[i]
		}
	}
	return nil
}

// clone is a copy whose endpoints may be changed.
func (p *member) clone() *member {
	next := *p
	next.Endpoints = slices.Clone(p.Endpoints)
	return &next
}

// without is a copy that lacks an endpoint.
func (p *member) without(networkID string) *member {
	next := p.clone()
	next.Endpoints = slices.DeleteFunc(next.Endpoints, func(e endpoint) bool { return e.Network == networkID })
	return next
}

// member gives a pod's record; nil when it is on no people's network.
func (m *Manager) member(podID string) *member {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.members[podID]
}

// save records a member and makes it the one in memory. The caller has the
// pod's lock and does not change p any more.
func (m *Manager) save(p *member) error {
	if err := m.cfg.Members.Put(p.PodID, p); err != nil {
		return fmt.Errorf("record the networks of pod %s: %w", p.PodID, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.members[p.PodID] = p
	return nil
}

// forget drops a member's record.
func (m *Manager) forget(podID string) error {
	if err := m.cfg.Members.Delete(podID); err != nil {
		return fmt.Errorf("forget the networks of pod %s: %w", podID, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.members, podID)
	return nil
}

// join plans an endpoint on a network, which must be there. It is saved by the
// caller; between the two the network may go, which wiring finds out.
func (m *Manager) join(p *member, spec network.EndpointSpec) (*endpoint, Network, error) {
	n, err := m.Find(spec.Network)
	if err != nil {
		return nil, Network{}, err
	}
	if err := checkEndpoint(n, spec); err != nil {
		return nil, Network{}, err
	}
	if e := p.endpoint(n.ID); e != nil && e.State != endpointGone {
		return nil, Network{}, worded(errdefs.ErrPermissionDenied, "endpoint already exists in network %s", n.Name)
	}
	spec.Network = n.ID
	return &endpoint{EndpointSpec: spec, ID: m.newID(), State: endpointMaking, Title: n.Name, Interface: p.freeInterface()}, n, nil
}

// freeInterface is the first name that none of the member's has.
func (p *member) freeInterface() string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("eth%d", i)
		taken := p.OnNode && p.nodeInterface() == name
		for _, e := range p.Endpoints {
			taken = taken || (e.Interface == name && e.State != endpointGone)
		}
		if !taken {
			return name
		}
	}
}

// nodeInterface is the name of the interface on the node's own network.
func (p *member) nodeInterface() string {
	if p.Node != nil && p.Node.Interface != "" {
		return p.Node.Interface
	}
	return network.InterfaceName
}

// checkEndpoint refuses what the network cannot give.
func checkEndpoint(n Network, spec network.EndpointSpec) error {
	for _, addr := range []netip.Addr{spec.IPv4, spec.IPv6} {
		if !addr.IsValid() {
			continue
		}
		s, ok := n.subnet(addr)
		if !ok {
			return worded(errdefs.ErrInvalidArgument, "no configured subnet contains IP address %s", addr)
		}
		if !usable(s.Prefix, addr) {
			return worded(errdefs.ErrInvalidArgument, "invalid endpoint settings: %s is no address of a host in %s", addr, s.Prefix)
		}
		if addr == s.Gateway {
			return worded(errdefs.ErrPermissionDenied, "Address already in use: %s is the gateway of network %s", addr, n.Name)
		}
		for name, aux := range s.Auxiliary {
			if aux == addr {
				return worded(errdefs.ErrPermissionDenied, "Address already in use: %s is the auxiliary address %s of network %s", addr, name, n.Name)
			}
		}
	}
	return nil
}

// CheckEndpoint says what is wrong with a wish, before anything is made for it.
func (m *Manager) CheckEndpoint(spec network.EndpointSpec) error {
	n, err := m.Find(spec.Network)
	if err != nil {
		return err
	}
	return checkEndpoint(n, spec)
}
