package builtin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/network/netns"
)

// bridgeDel takes back what bridgeAdd, or the plugin, gave. The addresses are
// given back last, so that nothing of the pod's is reachable when another pod
// gets them; the links are down then, and gone after Reap.
func (p *Plugins) bridgeDel(ctx context.Context, c *Call) (*current.Result, error) {
	conf, err := parseBridge(c.Conf)
	if err != nil {
		return nil, err
	}
	if err := p.removeVeth(c, conf); err != nil {
		return nil, err
	}
	if err := failpoint.Inject(ctx, "network.bridge.down"); err != nil {
		return nil, err
	}
	if err := p.table.Unmasquerade(c.owner()); err != nil {
		return nil, err
	}
	if _, err := c.Delegate(ctx, conf.IPAM.Type); err != nil {
		return nil, err
	}
	return nil, failpoint.Inject(ctx, "network.bridge.released")
}

// removeVeth removes the pair from whichever end it can be reached.
func (p *Plugins) removeVeth(c *Call, conf *bridgeConf) error {
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	for _, name := range hostVeths(c, conf) {
		link, err := findVeth(h, name)
		if err != nil {
			return err
		}
		if link == nil {
			continue
		}
		if err := p.leaving.add(h, c.owner(), link); !isLinkMissing(err) {
			return err
		}
	}
	if c.NetNS == "" {
		return nil
	}
	pod, err := netns.Open(c.NetNS)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pod.Close()
	return pod.Do(func() error {
		inside, err := routeHandle()
		if err != nil {
			return err
		}
		defer inside.Close()
		link, err := findVeth(inside, c.IfName)
		if err != nil || link == nil {
			return err
		}
		if err := inside.LinkDel(link); err != nil && !isLinkMissing(err) {
			return fmt.Errorf("delete %s: %w", c.IfName, err)
		}
		return nil
	})
}

// hostVeths lists the names the host's end may have: ours, and the one the
// plugin gave.
func hostVeths(c *Call, conf *bridgeConf) []string {
	names := []string{hostVethName(c.ContainerID, c.IfName)}
	result, err := previous(c.Conf)
	if err != nil || result == nil {
		return names
	}
	for _, link := range result.Interfaces {
		if link.Sandbox == "" && strings.HasPrefix(link.Name, "veth") && link.Name != names[0] && link.Name != vlanGatewayName(conf) {
			names = append(names, link.Name)
		}
	}
	return names
}

// findVeth finds a link of that name that is one end of a veth pair; nil when
// there is none.
func findVeth(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if isLinkMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	if link.Type() != "veth" {
		return nil, nil
	}
	return link, nil
}

// bridgeGC hands GC on to the IPAM plugin; rules are swept by Sweep.
func (p *Plugins) bridgeGC(ctx context.Context, c *Call) (*current.Result, error) {
	conf, err := parseBridge(c.Conf)
	if err != nil {
		return nil, err
	}
	_, err = c.Delegate(ctx, conf.IPAM.Type)
	return nil, err
}
