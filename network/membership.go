package network

import (
	"net/netip"

	"github.com/nodeagent/nodeagent/network/builtin"
	"github.com/nodeagent/nodeagent/network/nat"
)

// Membership says which people's networks (package userdefined) a pod is on,
// in place of the network that is configured unless Node says otherwise.
type Membership struct {
	// Node says that the pod is on the network that is configured as well,
	// which it joins first.
	Node bool `json:"node,omitempty"`
	// Endpoints are the pod's places on networks, in the order they are
	// made; none gives the pod nothing but its loopback interface.
	Endpoints []EndpointSpec `json:"endpoints"`
	// Servers are the resolvers that are asked for the pod; none means those
	// of the node.
	Servers []netip.Addr `json:"servers,omitempty"`
}

// EndpointSpec is what is wanted of a pod's place on a network.
type EndpointSpec struct {
	// Network is the network's ID.
	Network string `json:"network"`
	// Aliases are further names of the pod on this network.
	Aliases []string `json:"aliases,omitempty"`
	// IPv4 and IPv6 are wanted addresses; the zero Addr means any.
	IPv4 netip.Addr `json:"ipv4"`
	IPv6 netip.Addr `json:"ipv6"`
	// MAC is the wanted hardware address; empty means any.
	MAC string `json:"mac,omitempty"`
	// Links are names that only this pod knows, with the names they stand for.
	Links map[string]string `json:"links,omitempty"`
	// Options are the driver's.
	Options map[string]string `json:"options,omitempty"`
	// GatewayPriority is greater for the network that has the default route;
	// of equal ones the first has it.
	GatewayPriority int64 `json:"gatewayPriority,omitempty"`
}

// Plugins are the reference plugins as this Manager carries them out.
func (m *Manager) Plugins() *builtin.Plugins { return m.plugins }

// Table is the agent's table in nftables.
func (m *Manager) Table() *nat.Table { return m.table }
