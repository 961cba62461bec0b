package userdefined

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Drivers.
const (
	Bridge  = "bridge"
	Macvlan = "macvlan"
	IPvlan  = "ipvlan"
)

// Options of drivers that mean something here; others are kept and do nothing,
// as docker has it.
const (
	optionBridgeName = "com.docker.network.bridge.name"
	optionICC        = "com.docker.network.bridge.enable_icc"
	optionMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optionHostIPv4   = "com.docker.network.bridge.host_binding_ipv4"
	optionHostIPv6   = "com.docker.network.bridge.host_binding_ipv6"
	optionMTU        = "com.docker.network.driver.mtu"
	optionParent     = "parent"
	optionMode       = "macvlan_mode"
	optionIPvlanMode = "ipvlan_mode"
)

// State is how far a network is.
type State string

// The states of a network. Found at start, one that is not ready is undone.
//
//	making ──▶ ready ──▶ removing ──▶ (gone)
const (
	Making   State = "making"
	Ready    State = "ready"
	Removing State = "removing"
)

// Network is a network as it is recorded.
type Network struct {
	// ID is 64 hexadecimal digits.
	ID        string
	Name      string
	Driver    string
	State     State
	CreatedAt time.Time
	// Internal networks lead nowhere.
	Internal   bool
	Attachable bool
	// IPv4 and IPv6 say which families it has; Subnets at most one of each
	// for the bridge driver.
	IPv4, IPv6 bool
	Subnets    []Subnet
	Options    map[string]string
	Labels     map[string]string
	// Link is the bridge, or the parent of macvlan and ipvlan; OwnLink says
	// that it goes with the network.
	Link    string
	OwnLink bool
}

// Subnet is a range of addresses of a network.
type Subnet struct {
	Prefix netip.Prefix
	// Range is where addresses are taken from; the zero Prefix is all.
	Range netip.Prefix
	// Gateway is the host's for a bridge, and the parent network's for
	// others.
	Gateway netip.Addr
	// Auxiliary are addresses that others have.
	Auxiliary map[string]netip.Addr
}

// bridgeOwner names the network in the nftables table.
func (n *Network) bridgeOwner() string { return networkOwner + n.ID }

// routed says whether the network leads outside.
func (n *Network) routed() bool { return !n.Internal }

// subnet is the network's subnet that an address is in.
func (n *Network) subnet(addr netip.Addr) (Subnet, bool) {
	for _, s := range n.Subnets {
		if s.Prefix.Contains(addr) {
			return s, true
		}
	}
	return Subnet{}, false
}

// flag reads an option that is true or false.
func (n *Network) flag(option string, otherwise bool) bool {
	if value, err := strconv.ParseBool(n.Options[option]); err == nil {
		return value
	}
	return otherwise
}

// Networks lists all networks, by name.
func (m *Manager) Networks() []Network {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var list []Network
	for _, n := range m.networks {
		if n.State == Ready {
			list = append(list, *n)
		}
	}
	slices.SortFunc(list, func(a, b Network) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return list
}

// Find gives the network of that ID, name or unique beginning of an ID, in
// this order.
func (m *Manager) Find(name string) (Network, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.findLocked(name)
	if err != nil {
		return Network{}, err
	}
	return *n, nil
}

func (m *Manager) findLocked(name string) (*Network, error) {
	if n := m.networks[name]; n != nil && n.State == Ready {
		return n, nil
	}
	var begin []*Network
	for _, n := range m.networks {
		switch {
		case n.State != Ready:
		case n.Name == name:
			return n, nil
		case name != "" && strings.HasPrefix(n.ID, name):
			begin = append(begin, n)
		}
	}
	switch len(begin) {
	case 0:
		return nil, worded(errdefs.ErrNotFound, "network %s not found", name)
	case 1:
		return begin[0], nil
	}
	return nil, worded(errdefs.ErrInvalidArgument, "network %s is ambiguous (%d matches found on ID prefix)", name, len(begin))
}

// put records a network and makes it the one in memory.
func (m *Manager) put(n Network) error {
	if err := m.cfg.Networks.PutSync(n.ID, &n); err != nil {
		return fmt.Errorf("record network %s: %w", n.Name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.networks[n.ID] = &n
	return nil
}

// drop forgets a network.
func (m *Manager) drop(n Network) error {
	if err := m.cfg.Networks.Delete(n.ID); err != nil {
		return fmt.Errorf("forget network %s: %w", n.Name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.networks, n.ID)
	return nil
}

// failure is an error whose text is all that a person reads.
type failure struct {
	text string
	kind error
}

func worded(kind error, format string, args ...any) error {
	return &failure{fmt.Sprintf(format, args...), kind}
}

// Error returns the text for a person.
func (f *failure) Error() string { return f.text }

// Words returns the text and the kind, for who tells a person.
func (f *failure) Words() (text string, kind error) { return f.text, f.kind }

// Unwrap returns the kind.
func (f *failure) Unwrap() error { return f.kind }
