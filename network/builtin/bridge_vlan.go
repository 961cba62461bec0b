package builtin

import (
	"fmt"
	"net"
	"slices"

	"github.com/containerd/errdefs"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

const (
	// maxVLAN is the highest ID that a network may have; 4095 is reserved.
	maxVLAN = 4094
	// nativeVLAN is that of what comes untagged from a port that has but
	// tagged ones.
	nativeVLAN = 1
)

// vlanTrunk names VLANs that a pod sends and gets tagged: one, a range, or both.
type vlanTrunk struct {
	MinID *int `json:"minID"`
	MaxID *int `json:"maxID"`
	ID    *int `json:"id"`
}

// parseVLANs checks the VLANs of a configuration, and lists those of its trunk.
func (conf *bridgeConf) parseVLANs() error {
	if conf.VLAN < 0 || conf.VLAN > maxVLAN {
		return fmt.Errorf("vlan %d is not 0 to %d: %w", conf.VLAN, maxVLAN, errdefs.ErrInvalidArgument)
	}
	for i, trunk := range conf.VLANTrunk {
		if (trunk.MinID == nil) != (trunk.MaxID == nil) {
			return fmt.Errorf("vlanTrunk %d: minID and maxID are only good together: %w", i, errdefs.ErrInvalidArgument)
		}
		for _, id := range []*int{trunk.MinID, trunk.MaxID, trunk.ID} {
			if id != nil && (*id < 1 || *id > maxVLAN) {
				return fmt.Errorf("vlanTrunk %d: VLAN %d is not 1 to %d: %w", i, *id, maxVLAN, errdefs.ErrInvalidArgument)
			}
		}
		if trunk.MinID != nil {
			if *trunk.MaxID < *trunk.MinID {
				return fmt.Errorf("vlanTrunk %d: minID is above maxID: %w", i, errdefs.ErrInvalidArgument)
			}
			for id := *trunk.MinID; id <= *trunk.MaxID; id++ {
				conf.trunk = append(conf.trunk, uint16(id))
			}
		}
		if trunk.ID != nil {
			conf.trunk = append(conf.trunk, uint16(*trunk.ID))
		}
	}
	slices.Sort(conf.trunk)
	conf.trunk = slices.Compact(conf.trunk)
	return nil
}

// filtering reports whether the bridge is to look at VLANs.
func (conf *bridgeConf) filtering() bool { return conf.VLAN != 0 || conf.VLANTrunk != nil }

// tagPort makes a port of the bridge one of the configuration's VLANs: vlan
// untagged, those of trunk tagged.
func tagPort(h *netlink.Handle, port netlink.Link, bridge *netlink.Bridge, conf *bridgeConf, trunk []uint16) error {
	if conf.VLAN == 0 && len(trunk) == 0 {
		return nil
	}
	if pvid := bridge.VlanDefaultPVID; pvid != nil && *pvid != 0 && !conf.PreserveDefaultVLAN {
		if err := h.BridgeVlanDel(port, *pvid, false, false, false, true); err != nil {
			return fmt.Errorf("take %s out of VLAN %d: %w", port.Attrs().Name, *pvid, err)
		}
	}
	untagged := uint16(conf.VLAN)
	if untagged == 0 {
		untagged = nativeVLAN
	}
	for _, id := range append([]uint16{untagged}, trunk...) {
		native := id == untagged
		if err := h.BridgeVlanAdd(port, id, native, native, false, true); err != nil {
			return fmt.Errorf("put %s into VLAN %d: %w", port.Attrs().Name, id, err)
		}
	}
	return nil
}

// gatewayLink is the link that has the gateways' addresses: the bridge, or the
// free end of a veth pair whose other end is a port of the VLAN. Nil when the
// latter is not there.
func gatewayLink(h *netlink.Handle, bridge *netlink.Bridge, conf *bridgeConf) (netlink.Link, error) {
	if conf.VLAN == 0 || !conf.IsGateway {
		return bridge, nil
	}
	link, err := h.LinkByName(vlanGatewayName(conf))
	if isLinkMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the gateway of VLAN %d: %w", conf.VLAN, err)
	}
	return link, nil
}

// vlanGatewayName is what the plugin calls it.
func vlanGatewayName(conf *bridgeConf) string { return fmt.Sprintf("%s.%d", conf.Bridge, conf.VLAN) }

// vlanPortName is the name of the gateway's port of the bridge. It follows from
// the bridge's, so that one that was left half-made is found.
func vlanPortName(conf *bridgeConf) string { return vethName(vlanGatewayName(conf)) }

// makeGatewayLink finds or makes what gatewayLink finds. What is there already
// is made whole, for its maker may have been killed.
func makeGatewayLink(h *netlink.Handle, bridge *netlink.Bridge, conf *bridgeConf) (netlink.Link, error) {
	link, err := gatewayLink(h, bridge, conf)
	if err != nil || link != nil && link.Attrs().Flags&net.FlagUp != 0 {
		return link, err
	}
	name, portName := vlanGatewayName(conf), vlanPortName(conf)
	if link == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = name, bridge.MTU
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: portName}); err != nil {
			return nil, fmt.Errorf("create %s, the gateway of VLAN %d: %w", name, conf.VLAN, err)
		}
		if link, err = h.LinkByName(name); err != nil {
			return nil, fmt.Errorf("find %s: %w", name, err)
		}
	}
	// A link of another's making has another port, which is not ours to change.
	port, err := h.LinkByName(portName)
	if err != nil && !isLinkMissing(err) {
		return nil, fmt.Errorf("find %s: %w", portName, err)
	}
	if err == nil {
		if err := plugGateway(h, port, bridge, conf); err != nil {
			return nil, err
		}
	}
	// It is brought up last: one that is up is whole.
	if err := h.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("bring up %s: %w", name, err)
	}
	return link, nil
}

func plugGateway(h *netlink.Handle, port netlink.Link, bridge *netlink.Bridge, conf *bridgeConf) error {
	name := port.Attrs().Name
	if err := trySysctl("0", "ipv6", "conf", name, "accept_ra"); err != nil {
		return err
	}
	if port.Attrs().MasterIndex != bridge.Index {
		if err := h.LinkSetMasterByIndex(port, bridge.Index); err != nil {
			return fmt.Errorf("plug %s into bridge %s: %w", name, bridge.Name, err)
		}
		if err := tagPort(h, port, bridge, conf, nil); err != nil {
			return err
		}
	}
	if err := h.LinkSetUp(port); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// reportGateway adds a VLAN's gateway to the result, as the plugin does.
func (w *wiring) reportGateway() {
	if link := w.gateway; link != nil && link.Attrs().Index != w.bridge.Index {
		w.result.Interfaces = append(w.result.Interfaces, &current.Interface{Name: link.Attrs().Name, Mac: link.Attrs().HardwareAddr.String()})
	}
}
