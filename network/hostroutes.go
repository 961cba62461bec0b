package network

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/network/netns"
)

// hostAddress is an address of the host and the link it is on.
type hostAddress struct {
	prefix netip.Prefix
	link   string
}

// hostAddresses lists those of links that are there.
func hostAddresses() ([]hostAddress, error) {
	addrs, err := netns.Dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
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

// HostRoutes lists the host's routes but default ones.
func HostRoutes() ([]netlink.Route, error) {
	routes, err := netns.Dump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	return slices.DeleteFunc(routes, isDefault), nil
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

// RoutePrefix is where a route leads.
func RoutePrefix(r netlink.Route) netip.Prefix {
	addr, _ := netip.AddrFromSlice(r.Dst.IP)
	ones, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones)
}

// DefaultMTU is that of the interface of the host's default route; zero, the
// kernel's own, when there is none.
func DefaultMTU() (int, error) {
	routes, err := netns.Dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return 0, fmt.Errorf("list the host's routes: %w", err)
	}
	for _, r := range routes {
		if !isDefault(r) {
			continue
		}
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			return link.Attrs().MTU, nil
		}
	}
	return 0, nil
}
