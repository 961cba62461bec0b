package userdefined

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/network/netns"
)

// settleRoutes gives the member the default routes it should have: by family,
// that of the first network with a gateway among those of the greatest
// priority. The node's own network comes first
// when the member was on it first.
func (m *Manager) settleRoutes(p *member) error {
	pod, err := netns.Open(p.NetNS)
	if err != nil {
		return err
	}
	defer pod.Close()
	return pod.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink socket: %w", err)
		}
		defer h.Close()
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			if err := m.settleFamily(h, p, family); err != nil {
				return err
			}
		}
		return nil
	})
}

// settleFamily is settleRoutes for one family, inside the pod.
func (m *Manager) settleFamily(h *netlink.Handle, p *member, family int) error {
	have, err := defaultRoutes(h, family)
	if err != nil {
		return err
	}
	if p.OnNode {
		node, err := h.LinkByName(p.nodeInterface())
		for _, r := range have {
			if err == nil && r.LinkIndex == node.Attrs().Index {
				return m.dropRoutes(h, have, r.LinkIndex)
			}
		}
	}
	want, err := m.wantedRoute(h, p, family)
	if err != nil {
		return err
	}
	keep := -1
	if want != nil {
		keep = want.LinkIndex
	}
	if err := m.dropRoutes(h, have, keep); err != nil || want == nil {
		return err
	}
	if err := h.RouteReplace(want); err != nil {
		return fmt.Errorf("add the default route by %s: %w", want.Gw, err)
	}
	return nil
}

// wantedRoute is the default route by the first endpoint that has one, of those
// of the greatest priority.
func (m *Manager) wantedRoute(h *netlink.Handle, p *member, family int) (*netlink.Route, error) {
	byPriority := slices.Clone(p.Endpoints)
	slices.SortStableFunc(byPriority, func(a, b endpoint) int { return cmp.Compare(b.GatewayPriority, a.GatewayPriority) })
	for _, e := range byPriority {
		if e.State != endpointWired {
			continue
		}
		gateway := e.Gateway4
		if family == unix.AF_INET6 {
			gateway = e.Gateway6
		}
		n, err := m.Find(e.Network)
		if err != nil || !gateway.IsValid() {
			continue
		}
		link, err := h.LinkByName(e.Interface)
		if err != nil {
			return nil, fmt.Errorf("find %s in the pod: %w", e.Interface, err)
		}
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere(family), Gw: gateway.AsSlice()}
		if mode := n.Options[optionIPvlanMode]; n.Driver == IPvlan && (mode == "l3" || mode == "l3s") {
			// There is nobody to ask for addresses of links.
			r.Gw, r.Scope = nil, netlink.SCOPE_LINK
		}
		return r, nil
	}
	return nil, nil
}

func everywhere(family int) *net.IPNet {
	if family == unix.AF_INET6 {
		return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
}

// defaultRoutes lists the namespace's default routes.
func defaultRoutes(h *netlink.Handle, family int) ([]netlink.Route, error) {
	routes, err := netns.Dump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes of the pod: %w", err)
	}
	var list []netlink.Route
	for _, r := range routes {
		if r.Dst == nil {
			list = append(list, r)
			continue
		}
		if ones, _ := r.Dst.Mask.Size(); ones == 0 {
			list = append(list, r)
		}
	}
	return list, nil
}

// dropRoutes deletes all default routes but those by one link.
func (m *Manager) dropRoutes(h *netlink.Handle, have []netlink.Route, keep int) error {
	for _, r := range have {
		if r.LinkIndex == keep {
			continue
		}
		if err := h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("delete a default route of the pod: %w", err)
		}
	}
	return nil
}

// hasOutside says whether a member can reach what is outside of its networks.
func (m *Manager) hasOutside(p *member) bool {
	if p.OnNode {
		return true
	}
	for _, e := range p.Endpoints {
		if n, err := m.Find(e.Network); err == nil && e.State == endpointWired && n.routed() {
			return true
		}
	}
	return false
}
