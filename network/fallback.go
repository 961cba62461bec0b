package network

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/nodeagent/nodeagent/network/builtin"
)

// DefaultNetwork is the name of the embedded network.
const DefaultNetwork = "nodeagent-default"

// Sizes of what the embedded network may be given.
const (
	minHostBits = 2
	maxFallback = 64 << 10
)

// fallback is the embedded network, as it is recorded.
type fallback struct {
	// Subnets are at most one of IPv4 and one of IPv6.
	Subnets []netip.Prefix `json:"subnets"`
	// Assigned says that the runtime's user chose them.
	Assigned bool `json:"assigned,omitempty"`
	// Bridges are all that were ever made, to be removed by Cleanup.
	Bridges []string `json:"bridges"`

	network *network
	// apart is set once the host was found to have no address in Subnets.
	apart bool
}

// bridgeName is another one for other subnets, so that pods keep theirs when
// the subnets change.
func (m *Manager) bridgeName(subnets []netip.Prefix) string {
	sum := sha256.Sum256(fmt.Append(nil, m.cfg.RootDir, m.cfg.Instance, subnets))
	return "na-" + hex.EncodeToString(sum[:5])
}

func (m *Manager) fallbackPath() string {
	return filepath.Join(m.cfg.RootDir, "default-network.json")
}

// defaultNetwork returns the embedded network; its subnets are chosen when it
// is first asked for, and kept.
func (m *Manager) defaultNetwork() (*network, error) {
	m.fallbackMu.Lock()
	defer m.fallbackMu.Unlock()
	if m.fallback == nil {
		if err := m.takeFallback(); err != nil {
			return nil, err
		}
	}
	if err := m.fallback.checkHost(); err != nil {
		return nil, err
	}
	return m.fallback.network, nil
}

// takeFallback finds or chooses the subnets, and makes the bridge, whose route
// tells others that they are taken.
func (m *Manager) takeFallback() error {
	defer ClaimSubnets()()
	f, err := m.readFallback()
	if err != nil {
		return err
	}
	if f != nil && !f.Assigned && m.inTheWay(f) {
		f.Subnets = nil
	}
	if f == nil || len(f.Subnets) == 0 {
		next := &fallback{}
		if f != nil {
			next.Bridges = f.Bridges
		}
		if next.Subnets, err = chooseSubnets(); err != nil {
			return err
		}
		f = next
	}
	if _, err := m.useFallback(f); err != nil {
		return err
	}
	if f.Assigned {
		return nil // the bridge comes with the first pod
	}
	if err := m.makeBridge(f); err != nil {
		m.fallback = nil
		return err
	}
	return nil
}

// makeBridge makes the embedded network's bridge as its first pod would.
func (m *Manager) makeBridge(f *fallback) error {
	mtu, err := DefaultMTU()
	if err != nil {
		return err
	}
	spec := builtin.BridgeSpec{Name: m.bridgeName(f.Subnets), MTU: mtu}
	for _, subnet := range f.Subnets {
		spec.Gateways = append(spec.Gateways, netip.PrefixFrom(subnet.Addr().Next(), subnet.Bits()))
	}
	if err := m.plugins.EnsureBridge(spec); err != nil {
		return fmt.Errorf("embedded network: %w", err)
	}
	return nil
}

// checkHost returns an error of kind ErrUnavailable as long as the host has an
// address within the subnets elsewhere than on a bridge of ours: pods would
// cut the host off from whoever is there. Once there is none it looks no more.
func (f *fallback) checkHost() error {
	if f.apart {
		return nil
	}
	addrs, err := hostAddresses()
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		for _, subnet := range f.Subnets {
			if subnet.Contains(addr.prefix.Addr()) && !slices.Contains(f.Bridges, addr.link) {
				return fmt.Errorf("embedded network: its subnet %s overlaps %s of the host's %s: %w", subnet, addr.prefix, addr.link, errdefs.ErrUnavailable)
			}
		}
	}
	f.apart = true
	return nil
}

// useFallback records the embedded network and makes it the one for new pods.
func (m *Manager) useFallback(f *fallback) (*network, error) {
	if bridge := m.bridgeName(f.Subnets); !slices.Contains(f.Bridges, bridge) {
		f.Bridges = append(f.Bridges, bridge)
	}
	data, err := m.fallbackConfig(f)
	if err != nil {
		return nil, err
	}
	list, err := parseConfig(data)
	if err == nil {
		f.network, err = prepare(list, true)
	}
	if err != nil {
		return nil, fmt.Errorf("embedded network: %w", err)
	}
	f.network.volatile = true
	record, err := json.Marshal(f)
	if err == nil {
		err = atomicfile.WriteSync(m.fallbackPath(), record, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("record the embedded network: %w", err)
	}
	m.fallback = f
	return f.network, nil
}

func (m *Manager) readFallback() (*fallback, error) {
	data, err := atomicfile.Read(m.fallbackPath(), maxFallback)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the embedded network: %w", err)
	}
	f := &fallback{}
	if err := json.Unmarshal(data, f); err != nil {
		return nil, fmt.Errorf("read the embedded network: %s: %w", m.fallbackPath(), err)
	}
	return f, nil
}

// fallbackConfig writes the embedded network's configuration.
func (m *Manager) fallbackConfig(f *fallback) ([]byte, error) {
	var ranges [][]map[string]string
	for _, subnet := range f.Subnets {
		ranges = append(ranges, []map[string]string{{"subnet": subnet.String()}})
	}
	mtu, err := DefaultMTU()
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"cniVersion": "1.1.0",
		"name":       DefaultNetwork,
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": m.bridgeName(f.Subnets), "isDefaultGateway": true, "ipMasq": true,
				"capabilities": map[string]bool{"mac": true},
				"hairpinMode":  true, "mtu": mtu,
				"ipam": map[string]any{"type": "host-local", "ranges": ranges, "dataDir": filepath.Join(m.cfg.StateDir, "ipam")},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
			map[string]any{"type": "bandwidth", "capabilities": map[string]bool{"bandwidth": true}},
		},
	})
}

// chooseSubnets picks subnets that no route of the host leads to.
func chooseSubnets() ([]netip.Prefix, error) {
	routes, err := HostRoutes()
	if err != nil {
		return nil, err
	}
	free := func(p netip.Prefix) bool {
		return !slices.ContainsFunc(routes, func(r netlink.Route) bool { return RoutePrefix(r).Overlaps(p) })
	}
	var subnets []netip.Prefix
	for _, candidate := range candidates() {
		if free(candidate) {
			subnets = append(subnets, candidate)
			break
		}
	}
	if len(subnets) == 0 {
		return nil, fmt.Errorf("embedded network: the host has routes to all subnets it could have: %w", errdefs.ErrUnavailable)
	}
	if disabled, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6"); err == nil && len(disabled) > 0 && disabled[0] == '0' {
		if local := UniqueLocal(); free(local) {
			subnets = append(subnets, local)
		}
	}
	return subnets, nil
}

// candidates are 10.88.0.0/16 to 10.127.0.0/16, then 172.20.0.0/16 to
// 172.31.0.0/16, then 192.168.128.0/20 to 192.168.240.0/20.
func candidates() []netip.Prefix {
	var list []netip.Prefix
	for i := byte(88); i < 128; i++ {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i}), 16))
	}
	for i := byte(20); i < 32; i++ {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i}), 16))
	}
	for i := 128; i < 256; i += 16 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i)}), 20))
	}
	return list
}

// UniqueLocal makes up a subnet as RFC 4193 says.
func UniqueLocal() netip.Prefix {
	var addr [16]byte
	rand.Read(addr[1:6])
	addr[0] = 0xfd
	return netip.PrefixFrom(netip.AddrFrom16(addr), 64)
}

// inTheWay reports whether the host has got routes of others' to the recorded
// subnets while none of our bridges is there.
func (m *Manager) inTheWay(f *fallback) bool {
	if _, err := netlink.LinkByName(m.bridgeName(f.Subnets)); err == nil {
		return false
	}
	routes, err := HostRoutes()
	if err != nil {
		return false
	}
	for _, r := range routes {
		for _, subnet := range f.Subnets {
			if RoutePrefix(r).Overlaps(subnet) {
				return true
			}
		}
	}
	return false
}

// SetPodCIDR makes cidrs, at most one of each family, the subnets of the
// embedded network for new pods, now and after a restart, and what networks are
// told that ask for ranges of addresses. Pods that are wired keep theirs.
func (m *Manager) SetPodCIDR(_ context.Context, cidrs []netip.Prefix) error {
	subnets, err := checkCIDRs(cidrs)
	if err != nil {
		return fmt.Errorf("set the pods' subnets: %w", err)
	}
	m.fallbackMu.Lock()
	defer m.fallbackMu.Unlock()
	before := m.fallback
	if before == nil {
		if before, err = m.readFallback(); err != nil {
			return err
		}
	}
	next := &fallback{Subnets: subnets, Assigned: true}
	if before != nil {
		if before.Assigned && slices.Equal(before.Subnets, subnets) {
			return nil
		}
		next.Bridges = slices.Clone(before.Bridges)
	}
	_, err = m.useFallback(next)
	return err
}

// DefaultSubnets are those of the embedded network, once it has some.
func (m *Manager) DefaultSubnets() []string {
	m.fallbackMu.Lock()
	defer m.fallbackMu.Unlock()
	if m.fallback == nil {
		return nil
	}
	var list []string
	for _, subnet := range m.fallback.Subnets {
		list = append(list, subnet.String())
	}
	return list
}

// subnetsFor is what a network that asks for ranges of addresses is told: those
// wanted, or the pod CIDRs that SetPodCIDR was given.
func (m *Manager) subnetsFor(n *network, wanted []netip.Prefix) ([]netip.Prefix, error) {
	asks := slices.ContainsFunc(n.list.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Capabilities["ipRanges"] })
	if !asks || len(wanted) > 0 {
		return wanted, nil
	}
	m.fallbackMu.Lock()
	defer m.fallbackMu.Unlock()
	f := m.fallback
	if f == nil {
		var err error
		if f, err = m.readFallback(); err != nil {
			return nil, err
		}
	}
	if f != nil && f.Assigned {
		return f.Subnets, nil
	}
	if n.needsRanges {
		return nil, fmt.Errorf("network %s: the node's pod CIDR, which its addresses are taken from, is not known yet: %w", n.list.Name, errdefs.ErrUnavailable)
	}
	return nil, nil
}

func checkCIDRs(cidrs []netip.Prefix) ([]netip.Prefix, error) {
	var subnets []netip.Prefix
	seen := map[bool]bool{}
	for _, cidr := range cidrs {
		if !cidr.IsValid() || cidr.Addr().Is4In6() || cidr.Addr().BitLen()-cidr.Bits() < minHostBits || cidr.Bits() == 0 {
			return nil, fmt.Errorf("%s is no subnet for pods: %w", cidr, errdefs.ErrInvalidArgument)
		}
		if seen[cidr.Addr().Is4()] {
			return nil, fmt.Errorf("%s is the second of its family: %w", cidr, errdefs.ErrInvalidArgument)
		}
		seen[cidr.Addr().Is4()] = true
		subnets = append(subnets, cidr.Masked())
	}
	if len(subnets) == 0 {
		return nil, fmt.Errorf("none is given: %w", errdefs.ErrInvalidArgument)
	}
	return subnets, nil
}
