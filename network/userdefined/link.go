package userdefined

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/network/builtin"
	"github.com/nodeagent/nodeagent/network/nat"
)

// networkOwner begins the names of networks in the nftables table, as members'
// begin with builtin.UserPrefix alone.
const networkOwner = builtin.UserPrefix + "net-"

// maxVLAN is the last number a VLAN may have.
const maxVLAN = 4094

// macvlanModes and ipvlanModes are the options' values; empty is the default.
var (
	macvlanModes = map[string]netlink.MacvlanMode{
		"": netlink.MACVLAN_MODE_BRIDGE, "bridge": netlink.MACVLAN_MODE_BRIDGE, "private": netlink.MACVLAN_MODE_PRIVATE,
		"vepa": netlink.MACVLAN_MODE_VEPA, "passthru": netlink.MACVLAN_MODE_PASSTHRU,
	}
	ipvlanModes = map[string]netlink.IPVlanMode{
		"": netlink.IPVLAN_MODE_L2, "l2": netlink.IPVLAN_MODE_L2, "l3": netlink.IPVLAN_MODE_L3, "l3s": netlink.IPVLAN_MODE_L3S,
	}
)

// dummyPrefix begins the names of parents that lead nowhere, as docker's do.
func dummyPrefix(driver string) string {
	if driver == IPvlan {
		return "di-"
	}
	return "dm-"
}

func linkExists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

func isBridge(name string) bool {
	link, err := netlink.LinkByName(name)
	return err == nil && link.Type() == "bridge"
}

// vlanOf splits "eth0.50".
func vlanOf(name string) (parent string, vlan int, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 {
		return "", 0, false
	}
	vlan, err := strconv.Atoi(name[i+1:])
	return name[:i], vlan, err == nil && vlan > 0 && vlan <= maxVLAN
}

func isVLAN(name string) bool {
	_, _, ok := vlanOf(name)
	return ok
}

// mtu is the network's; zero is the kernel's own.
func (n *Network) mtu() (int, error) {
	if text := n.Options[optionMTU]; text != "" {
		return strconv.Atoi(text)
	}
	if n.Driver != Bridge {
		return 0, nil
	}
	return network.DefaultMTU()
}

// gateways are the addresses of the network's bridge.
func (n *Network) gateways() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range n.Subnets {
		list = append(list, netip.PrefixFrom(s.Gateway, s.Prefix.Bits()))
	}
	return list
}

// ensureLink makes what the network has on the host, as far as it is not there.
func (m *Manager) ensureLink(n *Network) error {
	if n.Driver == Bridge {
		mtu, err := n.mtu()
		if err == nil {
			// Nothing is forwarded before it may not be.
			err = m.cfg.Table.Isolate(n.bridgeOwner(), nat.Bridge{Link: n.Link, Internal: n.Internal})
		}
		if err == nil {
			err = m.cfg.Plugins.EnsureBridge(builtin.BridgeSpec{Name: n.Link, MTU: mtu, Gateways: n.gateways()})
		}
		if err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
		return nil
	}
	if linkExists(n.Link) {
		return nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.Link
	var link netlink.Link = &netlink.Dummy{LinkAttrs: attrs}
	switch parent, vlan, ok := vlanOf(n.Link); {
	case n.OwnLink && n.Options[optionParent] == "":
	case n.OwnLink && ok:
		below, err := netlink.LinkByName(parent)
		if err != nil {
			return worded(errdefs.ErrNotFound, "network %s: parent interface %s is not there", n.Name, parent)
		}
		attrs.ParentIndex = below.Attrs().Index
		link = &netlink.Vlan{LinkAttrs: attrs, VlanId: vlan}
	default:
		return worded(errdefs.ErrNotFound, "network %s: parent interface %s is not there", n.Name, n.Link)
	}
	err := netlink.LinkAdd(link)
	if errors.Is(err, unix.EOPNOTSUPP) && link.Type() == "dummy" {
		return m.addPair(n, attrs)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("network %s: create %s: %w", n.Name, n.Link, err)
	}
	return m.bringUp(n, n.Link)
}

// addPair makes a parent that leads nowhere of a pair of links, on a kernel that
// has no dummy ones. Both ends are up, since a parent without a carrier carries
// nothing between its children either.
func (m *Manager) addPair(n *Network, attrs netlink.LinkAttrs) error {
	peer := "p" + n.Link[1:]
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("network %s: create %s: %w", n.Name, n.Link, err)
	}
	return errors.Join(m.bringUp(n, peer), m.bringUp(n, n.Link))
}

func (m *Manager) bringUp(n *Network, name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("network %s: bring up %s: %w", n.Name, name, err)
	}
	return nil
}

// linkTypes are the kinds of links that networks make.
var linkTypes = map[string]bool{"bridge": true, "dummy": true, "vlan": true, "veth": true}

// removeLink takes away what ensureLink makes, and the network's addresses.
// What is gone already is no error.
func (m *Manager) removeLink(n Network) error {
	if n.OwnLink {
		link, err := netlink.LinkByName(n.Link)
		var missing netlink.LinkNotFoundError
		if err == nil && linkTypes[link.Type()] {
			err = netlink.LinkDel(link)
		}
		if err != nil && !errors.As(err, &missing) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("network %s: remove %s: %w", n.Name, n.Link, err)
		}
	}
	err := m.cfg.Table.Isolate(n.bridgeOwner(), nat.Bridge{})
	if err == nil {
		err = m.cfg.Table.Prune()
	}
	if err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	if err := os.RemoveAll(filepath.Join(m.ipamDir(), n.ID)); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	return nil
}
