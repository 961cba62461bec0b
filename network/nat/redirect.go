package nat

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// redirectTable is the table's name in a pod's network namespace.
const redirectTable = "nodeagent-dns"

// dnsPort is DNS's over UDP and TCP.
const dnsPort = 53

// RedirectDNS leads what a network namespace sends to port 53 of addr, which is
// an IPv4 address of its own, to other ports of that address: so a server
// answers there and the port stays free for the pod's own programs. ns is a
// descriptor of the namespace. The rules take the place of those of a former
// call, in one transaction.
func RedirectDNS(ns int, addr netip.Addr, udp, tcp uint16) error {
	conn, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		return fmt.Errorf("redirect DNS: %w", err)
	}
	table := &nftables.Table{Name: redirectTable, Family: nftables.TableFamilyIPv4}
	conn.AddTable(table)
	conn.DelTable(table)
	table = conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	for proto, port := range map[byte]uint16{unix.IPPROTO_UDP: udp, unix.IPPROTO_TCP: tcp} {
		exprs := compare(payload(destination4, 4), expr.CmpOpEq, addr.AsSlice())
		exprs = append(exprs, compare(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(0)}, expr.CmpOpEq, []byte{proto})...)
		exprs = append(exprs, compare(&expr.Payload{DestRegister: reg(0), Base: expr.PayloadBaseTransportHeader, Offset: destinationPort, Len: 2},
			expr.CmpOpEq, []byte(pad16(dnsPort))[:2])...)
		exprs = append(exprs,
			&expr.Immediate{Register: reg(0), Data: addr.AsSlice()},
			&expr.Immediate{Register: reg(1), Data: []byte(pad16(port))[:2]},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg(0), RegProtoMin: reg(1), Specified: true},
		)
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("redirect DNS: %w", err)
	}
	return nil
}
