package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Names of the sets and maps.
const (
	setSources4   = "sources4"   // pod address : jump to its network's chain
	setSources6   = "sources6"   // the same of IPv6
	setTargets4   = "targets4"   // pod address with published ports : jump to its network's chain
	setTargets6   = "targets6"   // the same of IPv6
	setPorts4     = "ports4"     // protocol . port : address . port
	setPorts6     = "ports6"     // the same of IPv6
	setHostPorts4 = "hostports4" // host address . protocol . port : address . port
	setHostPorts6 = "hostports6" // the same of IPv6
	setPublished  = "published"  // protocol . port
	setLinks      = "links"      // interfaces with published pods behind them
	setBridges    = "bridges"    // bridges that are kept apart
	setSameBridge = "samebridge" // each of them twice
	setInternal   = "internal"   // those that are kept apart from everything
)

// elementKey identifies an element: the set's name and the key's bytes.
type elementKey struct {
	set string
	key string
}

// element is an element of a set or map.
type element struct {
	elementKey
	// value is a map's data; empty for sets and verdict maps.
	value string
	// network is that of the chain, in a verdict map.
	network netip.Prefix
	comment string
}

// elementsOf lists the elements of an owner. An element two ports share
// appears once.
func elementsOf(owner string, rules Rules) []element {
	var list []element
	seen := map[elementKey]bool{}
	push := func(e element) {
		if !seen[e.elementKey] {
			seen[e.elementKey] = true
			list = append(list, e)
		}
	}
	for _, source := range rules.Sources {
		push(addressElement(owner, setSources4, source))
	}
	for _, target := range rules.Targets {
		push(addressElement(owner, setTargets4, target))
	}
	for _, port := range rules.Ports {
		push(portElement(owner, rules.Link, port))
		push(element{elementKey: elementKey{set: setPublished, key: protocolPort(port.Protocol, port.HostPort)}})
	}
	if len(rules.Ports) > 0 && rules.Link != "" {
		push(element{elementKey: elementKey{set: setLinks, key: linkName(rules.Link)}})
	}
	return append(list, bridgeElements(owner, rules.Bridge)...)
}

// Words for bridges in the comments of elements.
const (
	wordOpen     = "open"
	wordInternal = "internal"
)

// bridgeElements are those of a bridge.
func bridgeElements(owner string, b Bridge) []element {
	if b.Link == "" {
		return nil
	}
	name := linkName(b.Link)
	list := []element{
		{elementKey: elementKey{setBridges, name}, comment: owner + " " + wordOpen},
		{elementKey: elementKey{setSameBridge, name + name}},
	}
	if b.Internal {
		list[0].comment = owner + " " + wordInternal
		list = append(list, element{elementKey: elementKey{setInternal, name}})
	}
	return list
}

// parseBridge is the reverse of bridgeElements.
func parseBridge(key []byte, comment string) (owner string, b Bridge, err error) {
	owner, word, ok := strings.Cut(comment, " ")
	name, _, _ := strings.Cut(string(key), "\x00")
	if !ok || owner == "" || name == "" || (word != wordOpen && word != wordInternal) {
		return "", Bridge{}, fmt.Errorf("%s: malformed element", setBridges)
	}
	return owner, Bridge{Link: name, Internal: word == wordInternal}, nil
}

// addressElement is an element of a verdict map by addresses; set is the map
// of IPv4.
func addressElement(owner, set string, addr netip.Prefix) element {
	if addr.Addr().Is6() {
		set = of6(set)
	}
	return element{
		elementKey: elementKey{set, string(addr.Addr().AsSlice())},
		network:    addr.Masked(),
		comment:    owner + " " + strconv.Itoa(addr.Bits()),
	}
}

// of6 is the set of IPv6 beside one of IPv4.
func of6(set string) string { return strings.Replace(set, "4", "6", 1) }

func portElement(owner, link string, port Port) element {
	set, key := setPorts4, protocolPort(port.Protocol, port.HostPort)
	if port.HostIP.IsValid() {
		set, key = setHostPorts4, string(port.HostIP.AsSlice())+key
	}
	if port.Target.Addr().Is6() {
		set = of6(set)
	}
	return element{
		elementKey: elementKey{set, key},
		value:      string(port.Target.Addr().AsSlice()) + pad16(port.Target.Port()),
		comment:    owner + " " + link,
	}
}

// protocolPort is "inet_proto . inet_service"; each part of a concatenation
// fills whole 32-bit registers.
func protocolPort(protocol uint8, port uint16) string {
	return string([]byte{protocol, 0, 0, 0}) + pad16(port)
}

func pad16(port uint16) string {
	return string(binary.BigEndian.AppendUint16(nil, port)) + "\x00\x00"
}

func linkName(name string) string {
	var field [16]byte
	copy(field[:len(field)-1], name)
	return string(field[:])
}

// parsePort is the reverse of portElement.
func parsePort(set string, key, value []byte, comment string) (owner, link string, port Port, err error) {
	owner, link, ok := strings.Cut(comment, " ")
	if !ok {
		return "", "", Port{}, fmt.Errorf("%s: element without an owner", set)
	}
	if set == setHostPorts4 || set == setHostPorts6 {
		if len(key) < 8 {
			return "", "", Port{}, fmt.Errorf("%s: short key", set)
		}
		port.HostIP, ok = netip.AddrFromSlice(key[:len(key)-8])
		key = key[len(key)-8:]
	}
	if len(key) != 8 || len(value) < 4 || !ok {
		return "", "", Port{}, fmt.Errorf("%s: malformed element", set)
	}
	port.Protocol, port.HostPort = key[0], binary.BigEndian.Uint16(key[4:])
	target, ok := netip.AddrFromSlice(value[:len(value)-4])
	if !ok {
		return "", "", Port{}, fmt.Errorf("%s: malformed target", set)
	}
	port.Target = netip.AddrPortFrom(target, binary.BigEndian.Uint16(value[len(value)-4:]))
	return owner, link, port, nil
}

// parseAddress is the reverse of addressElement.
func parseAddress(set string, key []byte, comment string) (owner string, prefix netip.Prefix, err error) {
	owner, bits, _ := strings.Cut(comment, " ")
	addr, ok := netip.AddrFromSlice(key)
	size, err := strconv.Atoi(bits)
	if err != nil || !ok || owner == "" {
		return "", netip.Prefix{}, fmt.Errorf("%s: malformed element", set)
	}
	prefix = netip.PrefixFrom(addr, size)
	if !prefix.IsValid() {
		return "", netip.Prefix{}, fmt.Errorf("%s: malformed element", set)
	}
	return owner, prefix, nil
}

// Prefixes of the names of networks' chains, by the set that leads to them.
var chainPrefixes = map[string]string{setSources4: "masq-", setSources6: "masq-", setTargets4: "hairpin-", setTargets6: "hairpin-"}

// chainName names the chain that an element of a verdict map leads to; nft(8)
// does not read colons in names.
func (e element) chainName() string {
	return chainPrefixes[e.set] + strings.ReplaceAll(e.network.String(), ":", "_")
}
