package builtin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/network/netns"
)

const (
	// settleLimit bounds the search for duplicates of addresses, which takes a
	// second or two; settlePause is the time between two looks.
	settleLimit = 5 * time.Second
	settlePause = 20 * time.Millisecond
)

// configurePodEnd gives the pod's interface its addresses and routes, and
// names the interfaces in the result. It runs inside the pod's namespace.
func (w *wiring) configurePodEnd(ctx context.Context) error {
	name := w.call.IfName
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s in the pod: %w", name, err)
	}
	w.result.Interfaces = []*current.Interface{
		bridgeInterface: {Name: w.bridge.Name, Mac: w.bridge.HardwareAddr.String()},
		hostInterface:   {Name: w.veth.Name},
		podInterface:    {Name: name, Mac: link.Attrs().HardwareAddr.String(), Sandbox: w.call.NetNS},
	}
	w.reportGateway()
	if err := w.podSysctls(); err != nil {
		return err
	}
	for _, config := range w.result.IPs {
		addr := &netlink.Addr{IPNet: &config.Address}
		if familyOf(config.Address.IP) == unix.AF_INET6 && !w.conf.EnableDAD {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add address %s to %s: %w", config.Address.String(), name, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s in the pod: %w", name, err)
	}
	if w.conf.EnableDAD {
		if err := waitSettled(ctx, h, link); err != nil {
			return err
		}
	}
	for _, route := range w.result.Routes {
		if err := addRoute(h, link.Attrs().Index, route, w.result.IPs); err != nil {
			return err
		}
	}
	return nil
}

// waitSettled polls until the search for duplicates of the pod's addresses is
// over, since routes of addresses that are still doubtful do not work.
func waitSettled(ctx context.Context, h *netlink.Handle, link netlink.Link) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	tick := time.NewTicker(settlePause)
	defer tick.Stop()
	for {
		addrs, err := netns.Dump(func() ([]netlink.Addr, error) { return h.AddrList(link, unix.AF_INET6) })
		if err != nil {
			return fmt.Errorf("list addresses of %s in the pod: %w", link.Attrs().Name, err)
		}
		doubtful := ""
		for _, addr := range addrs {
			if addr.Flags&unix.IFA_F_DADFAILED != 0 {
				return fmt.Errorf("address %s of the pod is somebody else's already: %w", addr.IPNet, errdefs.ErrFailedPrecondition)
			}
			if addr.Flags&unix.IFA_F_TENTATIVE != 0 {
				doubtful = addr.IPNet.String()
			}
		}
		if doubtful == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the search for duplicates of %s: %w", doubtful, ctx.Err())
		case <-tick.C:
		}
	}
}

// podSysctls sets what the plugin sets: no search for duplicates of addresses
// that are handed out but once, no loss of IPv6 addresses on link down, and
// IPv6 at all when there is an IPv6 address.
func (w *wiring) podSysctls() error {
	name := w.call.IfName
	dad := "0"
	if w.conf.EnableDAD {
		dad = "1"
		if err := trySysctl("1", "ipv6", "conf", name, "enhanced_dad"); err != nil {
			return err
		}
	}
	if err := trySysctl(dad, "ipv6", "conf", name, "accept_dad"); err != nil {
		return err
	}
	if err := setSysctl("1", "ipv4", "conf", name, "arp_notify"); err != nil {
		return err
	}
	for _, config := range w.result.IPs {
		if familyOf(config.Address.IP) == unix.AF_INET {
			continue
		}
		for _, link := range []string{"lo", name} {
			if err := ensureSysctl("0", "ipv6", "conf", link, "disable_ipv6"); err != nil {
				return err
			}
		}
		return setSysctl("1", "ipv6", "conf", name, "keep_addr_on_down")
	}
	return nil
}

// addRoute adds a route of the result; one without a gateway goes by the first
// gateway of its family.
func addRoute(h *netlink.Handle, index int, route *types.Route, ips []*current.IPConfig) error {
	gateway := route.GW
	for _, config := range ips {
		if gateway == nil && config.Gateway != nil && familyOf(config.Gateway) == familyOf(route.Dst.IP) {
			gateway = config.Gateway
		}
	}
	r := netlink.Route{LinkIndex: index, Dst: &route.Dst, Gw: gateway, Priority: route.Priority, MTU: route.MTU, AdvMSS: route.AdvMSS}
	if route.Table != nil {
		r.Table = *route.Table
	}
	if route.Scope != nil {
		r.Scope = netlink.Scope(*route.Scope)
	}
	if err := h.RouteAddEcmp(&r); err != nil {
		return fmt.Errorf("add route to %s by %s: %w", route.Dst.String(), gateway, err)
	}
	return nil
}

// addressMAC makes a locally administered unicast address of a pod's first
// address. A pod that gets an address another one had is then reached at once
// by everybody who still remembers where that was.
func addressMAC(ips []*current.IPConfig) net.HardwareAddr {
	addr := ips[0].Address.IP
	if v4 := addr.To4(); v4 != nil {
		return append(net.HardwareAddr{0x0a, 0x58}, v4...)
	}
	sum := sha256.Sum256(addr)
	return append(net.HardwareAddr{0x0a, 0x58}, sum[:4]...)
}

// randomMAC makes a locally administered unicast address.
func randomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	rand.Read(mac)
	mac[0] = mac[0]&^1 | 2
	return mac
}
