package builtin

import (
	"net"
	"net/netip"
)

// BridgeSpec is a bridge as EnsureBridge makes it.
type BridgeSpec struct {
	Name string
	// MTU is the kernel's own when zero.
	MTU int
	// Gateways are the bridge's addresses, at most one of each family.
	Gateways []netip.Prefix
}

// EnsureBridge finds or makes a bridge as an ADD of the bridge plugin does, for
// a network that has its bridge before its first pod.
func (p *Plugins) EnsureBridge(spec BridgeSpec) error {
	h, err := routeHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	conf := &bridgeConf{Bridge: spec.Name, MTU: spec.MTU, IsGateway: true}
	var gateways []net.IPNet
	for _, g := range spec.Gateways {
		gateways = append(gateways, net.IPNet{IP: g.Addr().AsSlice(), Mask: net.CIDRMask(g.Bits(), g.Addr().BitLen())})
	}
	_, _, err = p.ensureBridge(h, conf, gateways)
	return err
}
