package userdefined

import (
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/network"
)

// Endpoint is a pod's place on a network, as it is at one moment.
type Endpoint struct {
	network.EndpointSpec
	// ID is 64 hexadecimal digits.
	ID string
	// Name is the network's.
	Name string
	// Gone says that the network was removed; the rest is empty then.
	Gone                    bool
	Interface, HardwareAddr string
	Addr4, Addr6            netip.Prefix
	Gateway4, Gateway6      netip.Addr
}

// Endpoints lists a pod's places, in the order it joined the networks; member
// is false when it is on none and never was. onNode says whether a member is on
// the node's own network as well.
func (m *Manager) Endpoints(podID string) (list []Endpoint, member, onNode bool) {
	p := m.member(podID)
	if p == nil {
		return nil, false, false
	}
	for _, e := range p.Endpoints {
		if e.State != endpointWired && e.State != endpointGone {
			continue
		}
		list = append(list, Endpoint{
			EndpointSpec: e.EndpointSpec, ID: e.ID, Name: e.Title, Gone: e.State == endpointGone,
			Interface: e.Interface, HardwareAddr: e.HardwareAddr,
			Addr4: e.Addr4, Addr6: e.Addr6, Gateway4: e.Gateway4, Gateway6: e.Gateway6,
		})
	}
	return list, true, p.OnNode
}

// NodeInterface is the name of a pod's interface on the node's own network.
func (m *Manager) NodeInterface(podID string) string {
	if p := m.member(podID); p != nil {
		return p.nodeInterface()
	}
	return network.InterfaceName
}

// Members lists the pods on a network.
func (m *Manager) Members(networkID string) []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var pods []string
	for id, p := range m.members {
		if e := p.endpoint(networkID); e != nil && e.State == endpointWired {
			pods = append(pods, id)
		}
	}
	slices.Sort(pods)
	return pods
}

// CheckNetworks is nil when all networks a pod should be on are there. The
// error is of kind ErrNotFound and names the first that is not.
func (m *Manager) CheckNetworks(podID string) error {
	p := m.member(podID)
	if p == nil {
		return nil
	}
	for _, e := range p.Endpoints {
		if e.State == endpointGone {
			return worded(errdefs.ErrNotFound, "network %s not found", e.Title)
		}
	}
	return nil
}
