package builtin

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/network/netns"
)

// enableForward lets the host forward what the gateways are for.
func enableForward(h *netlink.Handle, gateways []net.IPNet) error {
	families := map[int]bool{}
	for _, gateway := range gateways {
		families[familyOf(gateway.IP)] = true
	}
	if families[unix.AF_INET] {
		if err := ensureSysctl("1", "ipv4", "ip_forward"); err != nil {
			return err
		}
	}
	if families[unix.AF_INET6] {
		return enableForward6(h)
	}
	return nil
}

// enableForward6 lets the host forward IPv6. A forwarding host no longer
// accepts router advertisements unless told to, and would lose its own routes
// when they run out: interfaces that have such routes are told first.
func enableForward6(h *netlink.Handle) error {
	if sysctl("ipv6", "conf", "all", "forwarding") == "1" {
		return nil
	}
	routes, err := netns.Dump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(unix.AF_INET6, &netlink.Route{Protocol: unix.RTPROT_RA}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list IPv6 routes: %w", err)
	}
	for _, route := range routes {
		link, err := h.LinkByIndex(route.LinkIndex)
		if err != nil {
			continue // gone since
		}
		name := link.Attrs().Name
		if sysctl("ipv6", "conf", name, "accept_ra") == "1" {
			if err := setSysctl("2", "ipv6", "conf", name, "accept_ra"); err != nil {
				return err
			}
		}
	}
	return setSysctl("1", "ipv6", "conf", "all", "forwarding")
}
