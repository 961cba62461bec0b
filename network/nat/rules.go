package nat

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The registers of 32 bits. reg(0) and the one of 128 bits that begins at the
// same place are the same memory.
func reg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

// ipsDstNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const ipsDstNAT = 1 << 5

// afterServices is the priority of what leads to published ports: behind that of
// kube-proxy and all others who change destinations (CVE-2019-9946).
var afterServices = nftables.ChainPriorityRef(*nftables.ChainPriorityNATDest + 1)

// afterTracking is when a packet's flow is known, and nobody has changed its
// addresses.
var afterTracking = nftables.ChainPriorityRef(*nftables.ChainPriorityConntrack + 1)

// Offsets of addresses in the headers of IPv4 and IPv6, and of the
// destination port in those of TCP, UDP and SCTP.
const (
	source4, destination4 = 12, 16
	source6, destination6 = 8, 24
	destinationPort       = 2
)

// writeRules puts the fixed chains and rules into a transaction:
//
//	guard        what comes to 127/8 from elsewhere, or from it out of a pod, is dropped (CVE-2020-8558)
//	prerouting,
//	output       what is for an address of this host goes to published
//	published    destination by the maps of ports
//	forward      what would go from one bridge that is kept apart to another is dropped, unless to a published port
//	postrouting  what was redirected goes by its target to hairpin-*; sources go to masq-*
func writeRules(conn *nftables.Conn, table *nftables.Table, byName map[string]*nftables.Set) {
	chain := func(name string) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: name, Table: table})
	}
	hooked := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: priority})
	}
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		var exprs []expr.Any
		for _, part := range parts {
			exprs = append(exprs, part...)
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}

	guard := hooked("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, afterTracking)
	// Every packet passes here and in forward, those between pods of one bridge too where the host filters bridged
	// packets: a flow is judged by its first one, which is not tracked any further when it is dropped.
	rule(guard, goesOn(), verdict(expr.VerdictAccept, ""))
	rule(guard, family(unix.NFPROTO_IPV4), loopback4(destination4), inputLink(expr.CmpOpNeq, "lo"), verdict(expr.VerdictDrop, ""))
	rule(guard, family(unix.NFPROTO_IPV4), loopback4(source4), inSet(byName[setLinks], expr.MetaKeyIIFNAME), verdict(expr.VerdictDrop, ""))

	writeForward(hooked("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter), byName, rule)

	published := chain("published")
	rule(published, family(unix.NFPROTO_IPV6), compare(payload(destination6, 16), expr.CmpOpEq, netip.IPv6Loopback().AsSlice()), verdict(expr.VerdictReturn, ""))
	rule(published, redirect(unix.NFPROTO_IPV4, byName[setHostPorts4], true))
	rule(published, redirect(unix.NFPROTO_IPV4, byName[setPorts4], false))
	rule(published, redirect(unix.NFPROTO_IPV6, byName[setHostPorts6], true))
	rule(published, redirect(unix.NFPROTO_IPV6, byName[setPorts6], false))
	for name, hook := range map[string]*nftables.ChainHook{"prerouting": nftables.ChainHookPrerouting, "output": nftables.ChainHookOutput} {
		entry := hooked(name, nftables.ChainTypeNAT, hook, afterServices)
		rule(entry, toLocalAddress(), verdict(expr.VerdictJump, published.Name))
	}

	post := hooked("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	rule(post, redirected(byName[setPublished]), family(unix.NFPROTO_IPV4), lookupVerdict(byName[setTargets4], destination4, 4))
	rule(post, redirected(byName[setPublished]), family(unix.NFPROTO_IPV6), lookupVerdict(byName[setTargets6], destination6, 16))
	rule(post, family(unix.NFPROTO_IPV4), lookupVerdict(byName[setSources4], source4, 4))
	rule(post, family(unix.NFPROTO_IPV6), lookupVerdict(byName[setSources6], source6, 16))
}

// writeForward puts the rules that keep bridges apart into a transaction. What
// stays on one bridge passes here where the host filters bridged packets.
func writeForward(forward *nftables.Chain, byName map[string]*nftables.Set, rule func(*nftables.Chain, ...[]expr.Any)) {
	rule(forward, goesOn(), verdict(expr.VerdictAccept, ""))
	same := byName[setSameBridge]
	rule(forward, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg(0)},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg(linkWords)},
		&expr.Lookup{SourceRegister: reg(0), SetName: same.Name, SetID: same.ID},
	}, verdict(expr.VerdictAccept, ""))
	rule(forward, inSet(byName[setInternal], expr.MetaKeyIIFNAME), verdict(expr.VerdictDrop, ""))
	rule(forward, inSet(byName[setInternal], expr.MetaKeyOIFNAME), verdict(expr.VerdictDrop, ""))
	bit := binary.NativeEndian.AppendUint32(nil, ipsDstNAT)
	rule(forward, []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: bit, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(0), Data: make([]byte, 4)},
	}, verdict(expr.VerdictAccept, ""))
	rule(forward, inSet(byName[setBridges], expr.MetaKeyIIFNAME), inSet(byName[setBridges], expr.MetaKeyOIFNAME), verdict(expr.VerdictDrop, ""))
}

// goesOn matches packets of a flow whose first one was let through.
func goesOn() []expr.Any {
	bits := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: bits, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(0), Data: make([]byte, 4)},
	}
}

// linkWords is how many 32-bit registers an interface's name fills.
const linkWords = 4

// writeNetworkChain puts the chain that an element leads to into a
// transaction.
func writeNetworkChain(conn *nftables.Conn, table *nftables.Table, e element) {
	chain := conn.AddChain(&nftables.Chain{Name: e.chainName(), Table: table})
	var rules [][]expr.Any
	if e.set == setSources4 || e.set == setSources6 {
		rules = [][]expr.Any{masqueradeOutside(e.network)}
	} else {
		rules = hairpins(e.network)
	}
	for _, exprs := range rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(exprs, &expr.Masq{})})
	}
}

// masqueradeOutside matches what leaves a network for no multicast address.
func masqueradeOutside(network netip.Prefix) []expr.Any {
	if network.Addr().Is4() {
		exprs := append(family(unix.NFPROTO_IPV4), masked(destination4, 4, expr.CmpOpNeq, network)...)
		return append(exprs, masked(destination4, 4, expr.CmpOpNeq, netip.MustParsePrefix("224.0.0.0/4"))...)
	}
	exprs := append(family(unix.NFPROTO_IPV6), masked(destination6, 16, expr.CmpOpNeq, network)...)
	return append(exprs, masked(destination6, 16, expr.CmpOpNeq, netip.MustParsePrefix("ff00::/8"))...)
}

// hairpins match what comes from the target's own network, or from this host's
// loopback. It goes by addresses, since a packet that a bridge redirects to
// another of its ports has no input interface here.
func hairpins(network netip.Prefix) [][]expr.Any {
	if network.Addr().Is6() {
		return [][]expr.Any{append(family(unix.NFPROTO_IPV6), masked(source6, 16, expr.CmpOpEq, network)...)}
	}
	return [][]expr.Any{
		append(family(unix.NFPROTO_IPV4), loopback4(source4)...),
		append(family(unix.NFPROTO_IPV4), masked(source4, 4, expr.CmpOpEq, network)...),
	}
}

func payload(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: reg(0), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func compare(load expr.Any, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{load, &expr.Cmp{Op: op, Register: reg(0), Data: data}}
}

// masked compares an address of the packet with a prefix.
func masked(offset, length uint32, op expr.CmpOp, prefix netip.Prefix) []expr.Any {
	mask := make([]byte, length)
	for i := range prefix.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		payload(offset, length),
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: length, Mask: mask, Xor: make([]byte, length)},
		&expr.Cmp{Op: op, Register: reg(0), Data: prefix.Masked().Addr().AsSlice()},
	}
}

func family(proto byte) []expr.Any {
	return compare(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg(0)}, expr.CmpOpEq, []byte{proto})
}

func inputLink(op expr.CmpOp, name string) []expr.Any {
	return compare(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg(0)}, op, []byte(linkName(name)))
}

func inSet(set *nftables.Set, key expr.MetaKey) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg(0)},
		&expr.Lookup{SourceRegister: reg(0), SetName: set.Name, SetID: set.ID},
	}
}

func loopback4(offset uint32) []expr.Any {
	return masked(offset, 4, expr.CmpOpEq, netip.MustParsePrefix("127.0.0.0/8"))
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

// toLocalAddress matches destinations that are this host's own, so that a
// published port catches nothing that is on its way to elsewhere
// (CVE-2025-67499).
func toLocalAddress() []expr.Any {
	local := binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)
	return compare(&expr.Fib{Register: reg(0), ResultADDRTYPE: true, FlagDADDR: true}, expr.CmpOpEq, local)
}

// redirect changes the destination to what a map of ports says; with
// addresses the host's address is part of the map's key.
func redirect(proto byte, set *nftables.Set, addresses bool) []expr.Any {
	offset, length := uint32(destination4), uint32(4)
	if proto == unix.NFPROTO_IPV6 {
		offset, length = destination6, 16
	}
	words := length / 4
	exprs := family(proto)
	next := uint32(0)
	if addresses {
		exprs = append(exprs, payload(offset, length))
		next = words
	}
	return append(exprs,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(next)},
		&expr.Payload{DestRegister: reg(next + 1), Base: expr.PayloadBaseTransportHeader, Offset: destinationPort, Len: 2},
		&expr.Lookup{SourceRegister: reg(0), DestRegister: reg(0), IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(proto), RegAddrMin: reg(0), RegProtoMin: reg(words), Specified: true},
	)
}

// redirected matches connections whose destination was changed and that were
// for a published port.
func redirected(set *nftables.Set) []expr.Any {
	bit := binary.NativeEndian.AppendUint32(nil, ipsDstNAT)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: bit, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(0), Data: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(0)},
		&expr.Ct{Key: expr.CtKeyPROTODST, Register: reg(1), Direction: 0},
		&expr.Lookup{SourceRegister: reg(0), SetName: set.Name, SetID: set.ID},
	}
}

func lookupVerdict(set *nftables.Set, offset, length uint32) []expr.Any {
	return []expr.Any{
		payload(offset, length),
		&expr.Lookup{SourceRegister: reg(0), DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
	}
}
