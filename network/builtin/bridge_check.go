package builtin

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/nodeagent/nodeagent/network/netns"
)

// bridgeRestore masquerades the pod as bridgeAdd did.
func (p *Plugins) bridgeRestore(_ context.Context, c *Call) (*current.Result, error) {
	conf, err := parseBridge(c.Conf)
	if err != nil || !conf.IPMasq {
		return nil, err
	}
	result, err := previous(c.Conf)
	if err != nil || result == nil {
		return nil, err
	}
	return nil, p.table.Masquerade(c.owner(), sources(result))
}

// bridgeCheck compares bridge, veth pair, addresses and routes with prevResult.
func (p *Plugins) bridgeCheck(ctx context.Context, c *Call) (*current.Result, error) {
	conf, err := parseBridge(c.Conf)
	if err != nil {
		return nil, err
	}
	if _, err := c.Delegate(ctx, conf.IPAM.Type); err != nil {
		return nil, err
	}
	result, err := previous(c.Conf)
	if err != nil {
		return nil, err
	}
	if result == nil {
		return nil, fmt.Errorf("no prevResult: %w", errdefs.ErrInvalidArgument)
	}
	if err := checkHost(conf, result); err != nil {
		return nil, err
	}
	pod, err := netns.Open(c.NetNS)
	if err != nil {
		return nil, err
	}
	defer pod.Close()
	return nil, pod.Do(func() error { return checkPod(c.IfName, result) })
}

// checkHost looks for the host's end in the bridge.
func checkHost(conf *bridgeConf, result *current.Result) error {
	name := conf.Bridge
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	bridge, err := findBridge(h, name)
	if err != nil {
		return err
	}
	for _, want := range result.Interfaces {
		if want.Sandbox != "" || want.Name == name || want.Name == vlanGatewayName(conf) {
			continue
		}
		link, err := h.LinkByName(want.Name)
		if err != nil {
			return fmt.Errorf("find %s: %w", want.Name, err)
		}
		if link.Type() != "veth" {
			continue // another plugin's
		}
		if link.Attrs().MasterIndex != bridge.Index {
			return fmt.Errorf("%s is not plugged into bridge %s: %w", want.Name, name, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// checkPod looks for addresses and routes; it runs inside the pod's namespace.
func checkPod(ifName string, result *current.Result) error {
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(ifName)
	if err != nil {
		return fmt.Errorf("find %s in the pod: %w", ifName, err)
	}
	have, err := netns.Dump(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses of %s in the pod: %w", ifName, err)
	}
	found := map[string]bool{}
	for _, addr := range have {
		found[addr.IPNet.String()] = true
	}
	for _, want := range result.IPs {
		if !found[want.Address.String()] {
			return fmt.Errorf("%s in the pod lacks address %s: %w", ifName, want.Address.String(), errdefs.ErrFailedPrecondition)
		}
	}
	routes, err := netns.Dump(func() ([]netlink.Route, error) { return h.RouteList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list routes of %s in the pod: %w", ifName, err)
	}
	for _, route := range routes {
		if route.Dst != nil {
			found["to "+route.Dst.String()] = true
		}
	}
	for _, want := range result.Routes {
		if want.Table == nil && !found["to "+want.Dst.String()] {
			return fmt.Errorf("%s in the pod lacks the route to %s: %w", ifName, want.Dst.String(), errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}
