package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
)

// hostAddress is an address of the host and the link it is on.
type hostAddress struct {
	prefix netip.Prefix
	link   string
}

// hostAddresses lists those of links that are there.
func hostAddresses() ([]hostAddress, error) {
	for range 5 {
		addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the host's addresses: %w", err)
		}
		var list []hostAddress
		for _, addr := range addrs {
			ip, ok := netip.AddrFromSlice(addr.IP)
			link, err := netlink.LinkByIndex(addr.LinkIndex)
			if !ok || err != nil {
				continue
			}
			ones, _ := addr.Mask.Size()
			list = append(list, hostAddress{netip.PrefixFrom(ip.Unmap(), ones), link.Attrs().Name})
		}
		return list, nil
	}
	return nil, fmt.Errorf("list the host's addresses: they keep changing: %w", errdefs.ErrUnavailable)
}

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
