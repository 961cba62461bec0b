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
