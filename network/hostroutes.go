package network

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// HostRoutes lists the host's routes to more than one address, but default
// ones.
func HostRoutes() ([]netlink.Route, error) { return hostRoutes() }

// RoutePrefix is where a route leads.
func RoutePrefix(r netlink.Route) netip.Prefix { return routePrefix(r) }

// UniqueLocal makes up a subnet as RFC 4193 says.
func UniqueLocal() netip.Prefix { return uniqueLocal() }

// DefaultMTU is that of the interface of the host's default route; zero, the
// kernel's own, when there is none.
func DefaultMTU() (int, error) { return defaultMTU() }

// DefaultSubnets are those of the embedded network, once it has some.
func (m *Manager) DefaultSubnets() []string {
	m.fallbackMu.Lock()
	defer m.fallbackMu.Unlock()
	if m.fallback == nil {
		return nil
	}
	var list []string
	for _, subnet := range m.fallback.Subnets {
		list = append(list, subnet.String())
	}
	return list
}
