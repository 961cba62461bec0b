package builtin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/network/netns"
)

// Places in the result's list of interfaces.
const (
	bridgeInterface = iota
	hostInterface
	podInterface
)

// queueLength is the kernel's own for a link.
const queueLength = 1000

// portUpLimit bounds the wait for the bridge's port to carry packets.
const portUpLimit = 5 * time.Second

// wiring is an ADD of bridge under way.
type wiring struct {
	call *Call
	conf *bridgeConf
	// host is a socket in the host's namespace.
	host   *netlink.Handle
	bridge *netlink.Bridge
	// gateway has the gateways' addresses: the bridge, or a VLAN's link.
	gateway netlink.Link
	veth    *netlink.Veth
	result  *current.Result
}

// bridgeAdd wires the pod. What a failure leaves is taken away by DEL, which
// the runtime owes after a failed ADD.
func (p *Plugins) bridgeAdd(ctx context.Context, c *Call) (*current.Result, error) {
	conf, err := parseBridge(c.Conf)
	if err != nil {
		return nil, err
	}
	if err := conf.chooseMAC(c.Args); err != nil {
		return nil, err
	}
	pod, err := netns.Open(c.NetNS)
	if err != nil {
		return nil, err
	}
	defer pod.Close()
	host, err := routeHandle()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	result, err := allocate(ctx, c, conf)
	if err != nil {
		return nil, err
	}
	w := &wiring{call: c, conf: conf, host: host, result: result}
	gateways := conf.completeResult(result)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"bridge", func() (err error) {
			w.bridge, w.gateway, err = p.ensureBridge(host, conf, gateways)
			return err
		}},
		{"veth", func() error { return w.connect(ctx, pod) }},
		{"masquerade", func() error {
			if !conf.IPMasq {
				return nil
			}
			return p.table.Masquerade(c.owner(), sources(result))
		}},
		{"wait", func() error { return w.finish(ctx) }},
	} {
		if err := step.do(); err != nil {
			return nil, err
		}
		if err := failpoint.Inject(ctx, "network.bridge."+step.name); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// allocate asks the IPAM plugin for addresses.
func allocate(ctx context.Context, c *Call, conf *bridgeConf) (*current.Result, error) {
	raw, err := c.Delegate(ctx, conf.IPAM.Type)
	if err != nil {
		return nil, err
	}
	from, err := parseResult(raw, conf.CNIVersion)
	if err != nil {
		return nil, fmt.Errorf("ipam %s: %w", conf.IPAM.Type, err)
	}
	if len(from.IPs) == 0 {
		return nil, fmt.Errorf("ipam %s gave no address: %w", conf.IPAM.Type, errdefs.ErrUnavailable)
	}
	for _, config := range from.IPs {
		if !prefixOf(config.Address).IsValid() {
			return nil, fmt.Errorf("ipam %s gave %s for an address: %w", conf.IPAM.Type, config.Address.String(), errdefs.ErrUnavailable)
		}
	}
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, IPs: from.IPs, Routes: from.Routes, DNS: from.DNS}
	if conf.DNS.Nameservers != nil || conf.DNS.Search != nil || conf.DNS.Options != nil || conf.DNS.Domain != "" {
		result.DNS = conf.DNS
	}
	return result, nil
}

func sources(result *current.Result) []netip.Prefix {
	var list []netip.Prefix
	for _, config := range result.IPs {
		if prefix := prefixOf(config.Address); prefix.IsValid() {
			list = append(list, prefix)
		}
	}
	return list
}

// hostVethName is the name of the host's end.
func hostVethName(containerID, ifName string) string { return vethName(Owner(containerID, ifName)) }

// vethName makes a link's name of another one: NetworkManager leaves alone what
// begins with veth. It is as long as can be, since a DEL goes by it: two pods of one
// name would take each other's links.
func vethName(of string) string {
	sum := sha256.Sum256([]byte(of))
	return ("veth" + hex.EncodeToString(sum[:]))[:unix.IFNAMSIZ-1]
}

// connect makes the veth pair with the pod's end born inside the pod, and
// configures both ends.
func (w *wiring) connect(ctx context.Context, pod *netns.Namespace) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = hostVethName(w.call.ContainerID, w.call.IfName)
	attrs.MTU = w.conf.MTU
	// The queue is the pod's, as the plugin makes it; neither end has a
	// discipline that uses it unless somebody adds one.
	attrs.TxQLen = 0
	mac := w.conf.mac
	if mac == nil {
		mac = addressMAC(w.result.IPs)
	}
	w.veth = &netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         w.call.IfName,
		PeerTxQLen:       queueLength,
		PeerHardwareAddr: mac,
		PeerNamespace:    netlink.NsFd(pod.FD()),
	}
	if err := w.host.LinkAdd(w.veth); err != nil {
		return fmt.Errorf("create veth %s with peer %s: %w", attrs.Name, w.call.IfName, err)
	}
	if err := w.configureHostEnd(); err != nil {
		return err
	}
	return pod.Do(func() error { return w.configurePodEnd(ctx) })
}

// configureHostEnd plugs the host's end into the bridge. No router
// advertisement of a pod is accepted (CVE-2020-10749).
func (w *wiring) configureHostEnd() error {
	name := w.veth.Name
	if err := trySysctl("0", "ipv6", "conf", name, "accept_ra"); err != nil {
		return err
	}
	if err := w.host.LinkSetMasterByIndex(w.veth, w.bridge.Index); err != nil {
		return fmt.Errorf("plug %s into bridge %s: %w", name, w.bridge.Name, err)
	}
	if err := tagPort(w.host, w.veth, w.bridge, w.conf, w.conf.trunk); err != nil {
		return err
	}
	if w.conf.Hairpin {
		if err := w.host.LinkSetHairpin(w.veth, true); err != nil {
			return fmt.Errorf("set hairpin mode of %s: %w", name, err)
		}
	}
	if w.conf.PortIsolation {
		if err := w.host.LinkSetIsolated(w.veth, true); err != nil {
			return fmt.Errorf("isolate %s: %w", name, err)
		}
	}
	if err := w.host.LinkSetUp(w.veth); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// finish waits until the bridge forwards for the pod, and completes the
// result with what has settled by then.
func (w *wiring) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, portUpLimit)
	defer cancel()
	veth, err := waitUp(ctx, w.host, w.veth.Index)
	if err != nil {
		return fmt.Errorf("wait for %s: %w", w.veth.Name, err)
	}
	w.result.Interfaces[hostInterface].Mac = veth.Attrs().HardwareAddr.String()
	return nil
}

// waitUp polls a link until it is up; the kernel says so shortly after the
// other end came up.
func waitUp(ctx context.Context, h *netlink.Handle, index int) (netlink.Link, error) {
	pause := 100 * time.Microsecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		link, err := h.LinkByIndex(index)
		if err != nil {
			return nil, err
		}
		if link.Attrs().OperState == netlink.OperUp {
			return link, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("it stays %s: %w", link.Attrs().OperState, ctx.Err())
		case <-timer.C:
			pause = min(2*pause, 20*time.Millisecond)
			timer.Reset(pause)
		}
	}
}

// ensureBridge finds or makes the bridge, and the link with the gateways'
// addresses. Pods wait for one another only where something is to be made.
func (p *Plugins) ensureBridge(h *netlink.Handle, conf *bridgeConf, gateways []net.IPNet) (*netlink.Bridge, netlink.Link, error) {
	bridge, err := findBridge(h, conf.Bridge)
	if err == nil && bridge.Flags&net.FlagUp != 0 && (!conf.Promiscuous || bridge.Promisc != 0) {
		gateway, err := gatewayLink(h, bridge, conf)
		if err != nil {
			return nil, nil, err
		}
		ready, err := hasAddresses(h, gateway, gateways)
		if err != nil {
			return nil, nil, err
		}
		if ready {
			return bridge, gateway, enableForward(h, gateways)
		}
	}
	if err != nil && !isLinkMissing(err) {
		return nil, nil, err
	}
	p.bridgeMu.Lock()
	defer p.bridgeMu.Unlock()
	if bridge, err = makeBridge(h, conf); err != nil {
		return nil, nil, err
	}
	gateway, err := makeGatewayLink(h, bridge, conf)
	if err != nil {
		return nil, nil, err
	}
	for _, address := range gateways {
		if err := ensureAddress(h, gateway, address, conf.ForceAddress); err != nil {
			return nil, nil, err
		}
	}
	return bridge, gateway, enableForward(h, gateways)
}

// hasAddresses reports whether a link, which may be nil, is up and has all the
// gateways' addresses.
func hasAddresses(h *netlink.Handle, link netlink.Link, gateways []net.IPNet) (bool, error) {
	if link == nil || link.Attrs().Flags&net.FlagUp == 0 {
		return false, nil
	}
	if len(gateways) == 0 {
		return true, nil
	}
	found, err := netns.Dump(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return false, fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	for _, gateway := range gateways {
		if !slices.ContainsFunc(found, func(a netlink.Addr) bool { return a.IPNet.String() == gateway.String() }) {
			return false, nil
		}
	}
	return true, nil
}

func findBridge(h *netlink.Handle, name string) (*netlink.Bridge, error) {
	link, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find bridge %s: %w", name, err)
	}
	bridge, ok := link.(*netlink.Bridge)
	if !ok {
		return nil, fmt.Errorf("%s exists and is a %s, not a bridge: %w", name, link.Type(), errdefs.ErrFailedPrecondition)
	}
	return bridge, nil
}

// makeBridge creates the bridge if it is not there, and brings it up. It gets
// an address of its own, since a bridge would otherwise take over one of its
// ports', and change it as they come and go.
func makeBridge(h *netlink.Handle, conf *bridgeConf) (*netlink.Bridge, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = conf.Bridge, conf.MTU, randomMAC()
	link := &netlink.Bridge{LinkAttrs: attrs}
	if filtering := conf.filtering(); filtering {
		link.VlanFiltering = &filtering
	}
	err := h.LinkAdd(link)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("create bridge %s: %w", conf.Bridge, err)
	}
	bridge, err := findBridge(h, conf.Bridge)
	if err != nil {
		return nil, err
	}
	if conf.Promiscuous {
		if err := h.SetPromiscOn(bridge); err != nil {
			return nil, fmt.Errorf("set promiscuous mode of %s: %w", conf.Bridge, err)
		}
	}
	if err := trySysctl("0", "ipv6", "conf", conf.Bridge, "accept_ra"); err != nil {
		return nil, err
	}
	if err := h.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("bring up bridge %s: %w", conf.Bridge, err)
	}
	return bridge, nil
}

// ensureAddress gives a link a gateway's address. Another IPv4 address, or
// one of an overlapping IPv6 network, is in the way unless force is set.
func ensureAddress(h *netlink.Handle, link netlink.Link, want net.IPNet, force bool) error {
	name, family := link.Attrs().Name, familyOf(want.IP)
	found, err := netns.Dump(func() ([]netlink.Addr, error) { return h.AddrList(link, family) })
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, have := range found {
		if have.IPNet.String() == want.String() {
			return nil
		}
	}
	for _, have := range found {
		if family == unix.AF_INET6 && !have.IPNet.Contains(want.IP) && !want.Contains(have.IP) {
			continue
		}
		if !force {
			return fmt.Errorf("%s has address %s where %s is wanted: %w", name, have.IPNet, want.String(), errdefs.ErrFailedPrecondition)
		}
		if err := h.AddrDel(link, &netlink.Addr{IPNet: have.IPNet}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s of %s: %w", have.IPNet, name, err)
		}
	}
	addr := &netlink.Addr{IPNet: &want}
	if family == unix.AF_INET6 {
		// Nobody else has the gateway's address, and a pod shall not wait for
		// the search for one.
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s to %s: %w", want.String(), name, err)
	}
	// Setting it, even to what it is, makes it stay.
	if err := h.LinkSetHardwareAddr(link, link.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("fix the hardware address of %s: %w", name, err)
	}
	return nil
}
