package builtin

import (
	"context"
	"net"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/nodeagent/nodeagent/network/netns"
)

// loopbackAdd brings lo up and reports it, unless another plugin came before.
func loopbackAdd(_ *Plugins, _ context.Context, c *Call) (*current.Result, error) {
	if err := netns.LoopbackUp(c.NetNS); err != nil {
		return nil, err
	}
	result, err := previous(c.Conf)
	if err != nil || result != nil {
		return result, err
	}
	return &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{{Name: c.IfName, Mac: "00:00:00:00:00:00", Sandbox: c.NetNS}},
		IPs: []*current.IPConfig{
			{Interface: current.Int(0), Address: net.IPNet{IP: net.IPv4(127, 0, 0, 1).To4(), Mask: net.CIDRMask(8, 32)}},
			{Interface: current.Int(0), Address: net.IPNet{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)}},
		},
	}, nil
}
