package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// Names and texts of the firewall plugin, in iptables' table of filters.
const (
	filterTable    = "filter"
	forwardChain   = "FORWARD"
	acceptChain    = "CNI-FORWARD"
	acceptComment  = "CNI firewall plugin rules"
	adminComment   = "CNI firewall plugin admin overrides"
	legacyTables   = "/proc/net/ip_tables_names"
	legacyTables6  = "/proc/net/ip6_tables_names"
	firewalldTable = "firewalld"
)

// establishedOrRelated are the bits of both states in xt_conntrack.
const establishedOrRelated = 1<<1 | 1<<2

// ownerData marks the owner among what user space may note of a rule: none that
// nft and iptables know, which would show a comment, and miss it in rules
// they compare with.
const ownerData userdata.Type = 0xa0

// Forwarding is what the firewall plugin lets through: all that pods send, and
// the answers to it, also where iptables' policy is to drop.
type Forwarding struct {
	Addrs []netip.Addr
	// Admin is the chain that an administrator's own rules are in, which go
	// first.
	Admin string
}

// ForeignFilter tells, as an error of kind ErrNotImplemented, that rules in nftables'
// table of iptables would not do, since the host's filters are elsewhere.
func ForeignFilter() error {
	for _, path := range []string{legacyTables, legacyTables6} {
		names, err := os.ReadFile(path)
		if err == nil && slices.Contains(strings.Fields(string(names)), filterTable) {
			return fmt.Errorf("the host filters with iptables-legacy: %w", errdefs.ErrNotImplemented)
		}
	}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	for _, table := range tables {
		if table.Name == firewalldTable {
			return fmt.Errorf("the host filters with firewalld: %w", errdefs.ErrNotImplemented)
		}
	}
	return nil
}

// Accept lets an owner's packets through, with the rules that iptables would
// write for the firewall plugin.
func (t *Table) Accept(owner string, f Forwarding) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	families := byFamily(f.Addrs)
	err := t.accept(owner, f.Admin, families)
	if errors.Is(err, unix.ENOENT) {
		// Somebody took away what was there when it was looked at.
		clear(t.ways)
		err = t.accept(owner, f.Admin, families)
	}
	if err != nil {
		return fmt.Errorf("accept what %s sends: %w", podOf(owner), err)
	}
	return nil
}

func byFamily(addrs []netip.Addr) [][]netip.Addr {
	families := make([][]netip.Addr, 2)
	for _, addr := range addrs {
		i := 0
		if addr.Is6() {
			i = 1
		}
		families[i] = append(families[i], addr)
	}
	return slices.DeleteFunc(families, func(list []netip.Addr) bool { return len(list) == 0 })
}

func filterOf(addr netip.Addr) *nftables.Table {
	family := nftables.TableFamilyIPv4
	if addr.Is6() {
		family = nftables.TableFamilyIPv6
	}
	return &nftables.Table{Name: filterTable, Family: family}
}

// accept writes the rules of both families in one transaction. That the chains
// lead to them is looked at closely but the first time, since there may be very
// many chains and rules; afterwards only iptables' own chain is read.
func (t *Table) accept(owner, admin string, families [][]netip.Addr) error {
	conn, err := t.connect()
	if err != nil {
		return err
	}
	for _, addrs := range families {
		table := filterOf(addrs[0])
		way := forwardWay{table.Family, admin}
		known := t.ways[way]
		if known {
			if known, err = hasJump(conn, table, forwardChain, acceptChain); err != nil {
				return err
			}
		}
		if !known {
			if err := pave(conn, table, admin); err != nil {
				return err
			}
		}
		t.addAccepted(conn, table, owner, addrs)
		t.ways[way] = true
	}
	if err := t.commit(conn); err != nil {
		clear(t.ways)
		return err
	}
	return nil
}

// forwardWay is a family and the administrator's chain.
type forwardWay struct {
	family nftables.TableFamily
	admin  string
}

func (t *Table) addAccepted(conn *nftables.Conn, table *nftables.Table, owner string, addrs []netip.Addr) {
	tag := userdata.AppendString(nil, ownerData, t.tag(owner))
	chain := &nftables.Chain{Name: acceptChain, Table: table}
	for _, addr := range addrs {
		for _, exprs := range acceptRules(addr) {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs, UserData: tag})
		}
	}
}

// pave puts the chains that lead to the rules, where these are missing, into a
// transaction.
func pave(conn *nftables.Conn, table *nftables.Table, admin string) error {
	chains, err := chainsOf(conn, table)
	if err != nil {
		return err
	}
	jumps := [][3]string{{forwardChain, acceptComment, acceptChain}, {acceptChain, adminComment, admin}}
	missing := jumps[:0:0]
	for _, jump := range jumps {
		there := false
		if chains[jump[0]] {
			if there, err = hasJump(conn, table, jump[0], jump[2]); err != nil {
				return err
			}
		}
		if !there {
			missing = append(missing, jump)
		}
	}
	if !chains[forwardChain] {
		conn.AddTable(table)
		conn.AddChain(&nftables.Chain{Name: forwardChain, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	}
	for _, name := range []string{acceptChain, admin} {
		if !chains[name] {
			conn.AddChain(&nftables.Chain{Name: name, Table: table})
		}
	}
	for _, jump := range missing {
		insertJump(conn, table, jump)
	}
	return nil
}

// tag is what an owner's rules in a shared table are found by.
func (t *Table) tag(owner string) string { return t.name + " " + owner }

func chainsOf(conn *nftables.Conn, table *nftables.Table) (map[string]bool, error) {
	list, err := conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	names := map[string]bool{}
	for _, chain := range list {
		if chain.Table.Name == table.Name {
			names[chain.Name] = true
		}
	}
	return names, nil
}

func hasJump(conn *nftables.Conn, table *nftables.Table, from, to string) (bool, error) {
	rules, err := conn.GetRules(table, &nftables.Chain{Name: from, Table: table})
	if err != nil {
		return false, fmt.Errorf("list rules of chain %s: %w", from, err)
	}
	for _, rule := range rules {
		if len(rule.Exprs) == 0 {
			continue
		}
		if jump, ok := rule.Exprs[len(rule.Exprs)-1].(*expr.Verdict); ok && jump.Kind == expr.VerdictJump && jump.Chain == to {
			return true, nil
		}
	}
	return false, nil
}

// insertJump puts a jump before all other rules of a chain.
func insertJump(conn *nftables.Conn, table *nftables.Table, jump [3]string) {
	comment := xt.Comment(jump[1])
	conn.InsertRule(&nftables.Rule{
		Table: table, Chain: &nftables.Chain{Name: jump[0], Table: table},
		Exprs: []expr.Any{&expr.Match{Name: "comment", Info: &comment}, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictJump, Chain: jump[2]}},
	})
}

// acceptRules are the two of an address. iptables shows, compares and deletes
// them as its own, since they are made of what its own are made of.
func acceptRules(addr netip.Addr) [][]expr.Any {
	source, destination := uint32(source4), uint32(destination4)
	nobody, mask := make([]byte, 4), make([]byte, 4)
	if addr.Is6() {
		source, destination = source6, destination6
		nobody, mask = make([]byte, 16), make([]byte, 16)
	}
	states := &xt.ConntrackMtinfo3{ConntrackMtinfo2: xt.ConntrackMtinfo2{
		ConntrackMtinfoBase: xt.ConntrackMtinfoBase{
			OrigSrcAddr: nobody, OrigSrcMask: mask, OrigDstAddr: nobody, OrigDstMask: mask,
			ReplSrcAddr: nobody, ReplSrcMask: mask, ReplDstAddr: nobody, ReplDstMask: mask,
			MatchFlags: uint16(xt.ConntrackState),
		},
		StateMask: establishedOrRelated,
	}}
	is := func(offset uint32) []expr.Any {
		data := addr.AsSlice()
		return []expr.Any{
			&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(data))},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: data},
		}
	}
	accept := []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}}
	return [][]expr.Any{
		slices.Concat(is(destination), []expr.Any{&expr.Match{Name: "conntrack", Rev: 3, Info: states}}, accept),
		slices.Concat(is(source), accept),
	}
}

// Unaccept takes away what Accept wrote for an owner, and what anybody, such as the
// plugin, wrote for the addresses. Nil also when there is nothing.
func (t *Table) Unaccept(owner string, addrs []netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.deleteAccepted(func(rule acceptRule) bool {
		return rule.tag == t.tag(owner) || slices.Contains(addrs, rule.addr)
	})
	if err != nil {
		return fmt.Errorf("no longer accept what %s sends: %w", podOf(owner), err)
	}
	return nil
}

// acceptRule is a rule of an address that was found.
type acceptRule struct {
	*nftables.Rule
	addr netip.Addr
	tag  string
}

// deleteAccepted deletes the rules that are chosen. It is repeated when others
// delete some of them at the same time.
func (t *Table) deleteAccepted(chosen func(acceptRule) bool) error {
	var err error
	for range busyAttempts {
		var rules []acceptRule
		if rules, err = t.accepted(); err != nil {
			return err
		}
		conn, connErr := t.connect()
		if connErr != nil {
			return connErr
		}
		found := false
		for _, rule := range rules {
			if !chosen(rule) {
				continue
			}
			found = true
			if err := conn.DelRule(rule.Rule); err != nil {
				return err
			}
		}
		if !found {
			t.clean = true
			return nil
		}
		if err = t.commit(conn); err == nil || !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return err
}

// busyAttempts bounds the repeating of what others got in the way of.
const busyAttempts = 5

// accepted lists the rules of addresses of both families.
func (t *Table) accepted() ([]acceptRule, error) {
	conn, err := t.connect()
	if err != nil {
		return nil, err
	}
	var found []acceptRule
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		table := &nftables.Table{Name: filterTable, Family: family}
		rules, err := conn.GetRules(table, &nftables.Chain{Name: acceptChain, Table: table})
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list rules of chain %s: %w", acceptChain, err)
		}
		for _, rule := range rules {
			if addr, ok := addressOf(rule); ok {
				tag, _ := userdata.GetString(rule.UserData, ownerData)
				found = append(found, acceptRule{rule, addr, tag})
			}
		}
	}
	t.clean = true
	return found, nil
}

// addressOf reads the address that a rule accepts packets of.
func addressOf(rule *nftables.Rule) (netip.Addr, bool) {
	if len(rule.Exprs) < 3 {
		return netip.Addr{}, false
	}
	load, ok := rule.Exprs[0].(*expr.Payload)
	if !ok || load.Base != expr.PayloadBaseNetworkHeader {
		return netip.Addr{}, false
	}
	compare, ok := rule.Exprs[1].(*expr.Cmp)
	if !ok || compare.Op != expr.CmpOpEq {
		return netip.Addr{}, false
	}
	accept, ok := rule.Exprs[len(rule.Exprs)-1].(*expr.Verdict)
	if !ok || accept.Kind != expr.VerdictAccept {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(compare.Data)
}

// Accepts reports whether both rules of each address are there, and the chains
// that lead to them.
func (t *Table) Accepts(f Forwarding) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rules, err := t.accepted()
	if err != nil {
		return false, err
	}
	conn, err := t.connect()
	if err != nil {
		return false, err
	}
	defer func() { t.clean = true }()
	for _, addr := range f.Addrs {
		count := 0
		for _, rule := range rules {
			if rule.addr == addr {
				count++
			}
		}
		if count < len(acceptRules(addr)) {
			return false, nil
		}
		for from, to := range map[string]string{forwardChain: acceptChain, acceptChain: f.Admin} {
			there, err := hasJump(conn, filterOf(addr), from, to)
			if err != nil || !there {
				return false, err
			}
		}
	}
	return true, nil
}

// SweepAccepted takes away what Accept wrote for owners that keep does not name.
func (t *Table) SweepAccepted(keep map[string]bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.deleteAccepted(func(rule acceptRule) bool {
		owner, ours := strings.CutPrefix(rule.tag, t.tag(""))
		return ours && !keep[owner]
	})
	if err != nil {
		return fmt.Errorf("sweep chain %s: %w", acceptChain, err)
	}
	return nil
}
