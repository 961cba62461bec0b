package userdefined

import (
	"net/netip"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"

	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/network/dns"
)

// checkSubnet refuses a subnet that contradicts itself.
func checkSubnet(s Subnet) (Subnet, error) {
	p := s.Prefix
	if !p.IsValid() {
		return s, worded(errdefs.ErrInvalidArgument, "every ip-range or gateway must have a corresponding subnet")
	}
	if p != p.Masked() {
		return s, worded(errdefs.ErrInvalidArgument, "invalid subnet %s: it should be %s", p, p.Masked())
	}
	addr := p.Addr()
	if addr.Is4In6() || addr.IsMulticast() || addr.IsLoopback() || addr.IsUnspecified() || addr.BitLen()-p.Bits() < 2 {
		return s, worded(errdefs.ErrInvalidArgument, "invalid subnet %s: no network can have it", p)
	}
	if s.Range.IsValid() {
		s.Range = s.Range.Masked()
		if !p.Contains(s.Range.Addr()) || s.Range.Bits() < p.Bits() {
			return s, worded(errdefs.ErrInvalidArgument, "invalid ip-range %s: parent subnet %s doesn't contain it", s.Range, p)
		}
	}
	if s.Gateway.IsValid() && !usable(p, s.Gateway) {
		return s, worded(errdefs.ErrInvalidArgument, "invalid gateway %s: parent subnet %s doesn't contain this address", s.Gateway, p)
	}
	for _, aux := range s.Auxiliary {
		if !usable(p, aux) {
			return s, worded(errdefs.ErrInvalidArgument, "invalid auxiliary address %s: parent subnet %s doesn't contain this address", aux, p)
		}
		if aux == s.Gateway {
			return s, worded(errdefs.ErrInvalidArgument, "auxiliary address %s is the gateway's", aux)
		}
	}
	return s, nil
}

// usable says whether a host in p may have addr.
func usable(p netip.Prefix, addr netip.Addr) bool {
	return p.Contains(addr) && addr != p.Addr() && (addr.Is6() || addr != lastOf(p))
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// checkFamilies refuses subnets of families the network has not, and for a
// bridge a second one of a family.
func checkFamilies(n *Network) error {
	for i, s := range n.Subnets {
		if s.Prefix.Addr().Is4() && !n.IPv4 {
			return worded(errdefs.ErrInvalidArgument, "subnet %s is of IPv4, which is disabled", s.Prefix)
		}
		for _, o := range n.Subnets[:i] {
			if o.Prefix.Overlaps(s.Prefix) {
				return worded(errdefs.ErrInvalidArgument, "multiple overlapping subnet configuration is not supported: %s and %s", o.Prefix, s.Prefix)
			}
			if o.Prefix.Addr().Is4() == s.Prefix.Addr().Is4() {
				return worded(errdefs.ErrInvalidArgument, "%s driver doesn't support multiple subnets", n.Driver)
			}
		}
	}
	return nil
}

// chooseSubnets fills in what was left open, and refuses what others have.
func (m *Manager) chooseSubnets(n *Network, others []*Network) error {
	var taken []netip.Prefix
	for _, o := range others {
		for _, s := range o.Subnets {
			taken = append(taken, s.Prefix)
		}
	}
	routes, err := network.HostRoutes()
	if err != nil {
		return err
	}
	for _, s := range n.Subnets {
		if err := m.refuse(n, s, others, routes); err != nil {
			return err
		}
	}
	for _, want := range []struct {
		wanted, is4 bool
		candidates  func() []netip.Prefix
	}{{n.IPv4, true, candidates4}, {n.IPv6, false, candidates6}} {
		has := slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Addr().Is4() == want.is4 })
		if !want.wanted || has {
			continue
		}
		chosen, ok := choose(want.candidates(), taken, routes, nameservers(m.cfg.ResolvConf))
		if !ok {
			return worded(errdefs.ErrResourceExhausted, "all predefined address pools have been fully subnetted")
		}
		n.Subnets = append(n.Subnets, Subnet{Prefix: chosen})
	}
	for i := range n.Subnets {
		s := &n.Subnets[i]
		if s.chooseGateway(); !usable(s.Prefix, s.Gateway) {
			return worded(errdefs.ErrInvalidArgument, "subnet %s has no address left for the gateway", s.Prefix)
		}
	}
	return nil
}

// chooseGateway takes the first address that nobody has.
func (s *Subnet) chooseGateway() {
	if s.Gateway.IsValid() {
		return
	}
	taken := func(a netip.Addr) bool {
		for _, aux := range s.Auxiliary {
			if aux == a {
				return true
			}
		}
		return false
	}
	within := s.Prefix
	if s.Range.IsValid() && s.Range != s.Prefix {
		within = s.Range
	}
	first := within.Addr()
	if first == s.Prefix.Addr() {
		first = first.Next()
	}
	for taken(first) {
		first = first.Next()
	}
	s.Gateway = first
}

// refuse says who else has a subnet that was asked for. A parent's network is
// that of its macvlan and ipvlan networks.
func (m *Manager) refuse(n *Network, s Subnet, others []*Network, routes []netlink.Route) error {
	for _, o := range others {
		for _, theirs := range o.Subnets {
			if theirs.Prefix.Overlaps(s.Prefix) {
				return worded(errdefs.ErrPermissionDenied,
					"invalid pool request: Pool overlaps with other one on this address space: subnet %s overlaps %s of network %s", s.Prefix, theirs.Prefix, o.Name)
			}
		}
	}
	if n.Driver != Bridge {
		return nil
	}
	for _, r := range routes {
		theirs := network.RoutePrefix(r)
		// A wider route by a gateway stays good for the rest of it.
		if !theirs.Overlaps(s.Prefix) || (len(r.Gw) > 0 && theirs.Bits() < s.Prefix.Bits()) {
			continue
		}
		return worded(errdefs.ErrPermissionDenied,
			"invalid pool request: subnet %s overlaps %s, to which the host has a route", s.Prefix, theirs)
	}
	return nil
}

// choose picks the first candidate that nobody has.
func choose(candidates, taken []netip.Prefix, routes []netlink.Route, servers []netip.Addr) (netip.Prefix, bool) {
	for _, c := range candidates {
		free := !slices.ContainsFunc(taken, c.Overlaps) &&
			!slices.ContainsFunc(routes, func(r netlink.Route) bool { return network.RoutePrefix(r).Overlaps(c) }) &&
			!slices.ContainsFunc(servers, c.Contains)
		if free {
			return c, true
		}
	}
	return netip.Prefix{}, false
}

// candidates4 are docker's: 172.18.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20
// to 192.168.240.0/20.
func candidates4() []netip.Prefix {
	var list []netip.Prefix
	for i := byte(18); i < 32; i++ {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i}), 16))
	}
	for i := 0; i < 256; i += 16 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i)}), 20))
	}
	return list
}

// candidates6 are made up as RFC 4193 says.
func candidates6() []netip.Prefix {
	var list []netip.Prefix
	for range 4 {
		list = append(list, network.UniqueLocal())
	}
	return list
}

// nameservers are the node's resolvers: a network must not cover them.
func nameservers(path string) []netip.Addr {
	var list []netip.Addr
	for _, server := range readResolvConf(path).Servers {
		list = append(list, server.Addr())
	}
	return list
}

// readResolvConf reads a resolv.conf; one that is not there says nothing.
func readResolvConf(path string) dns.ResolvConf {
	f, err := os.Open(path)
	if err != nil {
		return dns.ResolvConf{}
	}
	defer f.Close()
	data := make([]byte, dns.MaxResolvConf)
	n := 0
	for n < len(data) {
		read, err := f.Read(data[n:])
		n += read
		if err != nil || read == 0 {
			break
		}
	}
	return dns.ParseResolvConf(data[:n])
}
