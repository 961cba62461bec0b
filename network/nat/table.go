// Package nat keeps the one nftables table of the agent: source addresses of
// pods that are masqueraded, and ports of the host that lead to pods.
//
// The table is written over netlink; no program is executed, and no table of
// anybody else is changed, but for what Accept writes into iptables' own as the
// firewall plugin does. The table's rules are fixed; what belongs to a pod
// are elements of sets and maps, so that a pod costs one short transaction
// however many pods there are. Each element carries in its comment who owns
// it, so that a restarted agent finds the owners again in the kernel. What a
// Table remembers is the truth: a table that somebody else flushed or deleted
// is written anew, as a whole, with the next change.
//
// A table of one's own can add no permission to what others forbid: a packet
// that another table's forward chain drops stays dropped.
package nat

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// maxComment is what nft(8) reads of an element's comment.
const maxComment = 128

// installMu guards a counter inside the nftables library that all its
// connections share.
var installMu sync.Mutex

// Port leads a port of the host to a pod.
type Port struct {
	// Protocol is unix.IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP.
	Protocol uint8
	// HostIP is the only address of the host that is meant; the zero Addr
	// means every one of the target's family.
	HostIP netip.Addr
	// HostPort is never zero.
	HostPort uint16
	// Target is the pod's address and port.
	Target netip.AddrPort
}

// String names the host's side, such as "tcp port 80 of 192.0.2.1".
func (p Port) String() string {
	text := fmt.Sprintf("%s port %d", protocolName(p.Protocol), p.HostPort)
	if p.HostIP.IsValid() {
		text += " of " + p.HostIP.String()
	}
	return text
}

func protocolName(protocol uint8) string {
	switch protocol {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol %d", protocol)
}

// overlaps reports whether both claim a same port of a same address.
func (p Port) overlaps(q Port) bool {
	return p.Protocol == q.Protocol && p.HostPort == q.HostPort &&
		p.Target.Addr().Is4() == q.Target.Addr().Is4() &&
		(!p.HostIP.IsValid() || !q.HostIP.IsValid() || p.HostIP == q.HostIP)
}

// Rules is what one owner has in the table.
type Rules struct {
	// Sources are masqueraded when they talk to an address outside of their
	// prefix that is no multicast address.
	Sources []netip.Prefix
	Published
	// Bridge is kept apart from others.
	Bridge Bridge
}

// Bridge is the bridge of a network that is kept apart from all other such:
// nothing is forwarded between the two but to published ports. An internal one
// is kept apart from everything.
type Bridge struct {
	// Link is the bridge's name; empty means none.
	Link     string
	Internal bool
}

// Published are ports of one owner.
type Published struct {
	Ports []Port
	// Targets are the addresses that the ports lead to, with the prefix of
	// their network. Who reaches such a port from the same network, or from
	// 127.0.0.0/8, is masqueraded, since the answer would not come past this
	// host otherwise.
	Targets []netip.Prefix
	// Link is the host's interface behind which the targets are.
	Link string
}

func (r Rules) empty() bool { return len(r.Sources) == 0 && len(r.Ports) == 0 && r.Bridge.Link == "" }

// Table is the agent's table. Its methods may be called side by side.
type Table struct {
	name string

	// mu guards what follows, and keeps transactions in the order of what is
	// remembered of them.
	mu     sync.Mutex
	owners map[string]Rules
	// refs counts the owners of each element.
	refs map[elementKey]int
	// chains are the names of the networks' chains in the kernel's table.
	chains map[string]bool
	// ways are those to rules in iptables' table that were found whole.
	ways map[forwardWay]bool
	// installed is false until the kernel's table is known to be whole.
	installed bool
	// conn is open from the first change on, over socket; clean says that nothing
	// is left in it to be sent or received.
	conn   *nftables.Conn
	socket *netlink.Conn
	clean  bool
}

// Open reads what a former agent left in the table name of the calling
// thread's network namespace; there need not be such a table. Nothing is
// written before the first change. Call Close in the end.
func Open(name string) (*Table, error) {
	t := &Table{name: name, ways: map[forwardWay]bool{}}
	t.forget()
	if err := t.load(); err != nil {
		return nil, fmt.Errorf("read nftables table %s: %w", name, err)
	}
	return t, nil
}

func (t *Table) forget() {
	t.owners = map[string]Rules{}
	t.refs = map[elementKey]int{}
	t.chains = map[string]bool{}
	t.installed = false
}

// Masquerade makes sources the owner's masqueraded addresses, in place of
// those it had. An address that another owner had is taken over: who an
// address belongs to is decided by who hands out addresses.
func (t *Table) Masquerade(owner string, sources []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for other, rules := range t.owners {
		if other == owner {
			continue
		}
		kept := slices.DeleteFunc(slices.Clone(rules.Sources), func(p netip.Prefix) bool {
			return slices.ContainsFunc(sources, func(s netip.Prefix) bool { return s.Addr() == p.Addr() })
		})
		if len(kept) != len(rules.Sources) {
			rules.Sources = kept
			if err := t.setLocked(other, rules); err != nil {
				return err
			}
		}
	}
	rules := t.owners[owner]
	rules.Sources = slices.Clone(sources)
	return t.setLocked(owner, rules)
}

// Publish makes p what the owner publishes, in place of what it did. The error
// is of kind ErrAlreadyExists when another owner has one of the ports, and
// nothing is changed then.
func (t *Table) Publish(owner string, p Published) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for other, rules := range t.owners {
		if other == owner {
			continue
		}
		for _, theirs := range rules.Ports {
			for _, ours := range p.Ports {
				if ours.overlaps(theirs) {
					return fmt.Errorf("%s is published by %s: %w", ours, podOf(other), errdefs.ErrAlreadyExists)
				}
			}
		}
	}
	rules := t.owners[owner]
	rules.Published = Published{slices.Clone(p.Ports), slices.Clone(p.Targets), p.Link}
	return t.setLocked(owner, rules)
}

// podOf makes an owner readable: "pod abc" of "abc/eth0".
func podOf(owner string) string {
	id, _, _ := strings.Cut(owner, "/")
	return "pod " + strings.TrimPrefix(id, "user-")
}

// Unmasquerade takes the owner's sources away. Nil also when it had none.
func (t *Table) Unmasquerade(owner string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	rules := t.owners[owner]
	rules.Sources = nil
	return t.setLocked(owner, rules)
}

// Unpublish takes the owner's ports away. Nil also when it had none.
func (t *Table) Unpublish(owner string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	rules := t.owners[owner]
	rules.Published = Published{}
	return t.setLocked(owner, rules)
}

// Isolate makes b the owner's bridge, in place of the one it had; the zero
// Bridge takes it away.
func (t *Table) Isolate(owner string, b Bridge) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	rules := t.owners[owner]
	rules.Bridge = b
	return t.setLocked(owner, rules)
}

// Owned returns what an owner has; nothing when it is not known.
func (t *Table) Owned(owner string) Rules {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.owners[owner]
}

// Owners lists who has something in the table.
func (t *Table) Owners() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var owners []string
	for owner := range t.owners {
		owners = append(owners, owner)
	}
	slices.Sort(owners)
	return owners
}

// Destroy deletes the table with all that is in it. Nil also when there is
// none. The Table can be used on; the next change writes it anew.
func (t *Table) Destroy() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	conn, err := t.connect()
	if err != nil {
		return fmt.Errorf("delete nftables table %s: %w", t.name, err)
	}
	// Adding it first makes the deletion one that cannot miss it.
	table := conn.AddTable(t.table())
	conn.DelTable(table)
	if err := t.commit(conn); err != nil {
		return fmt.Errorf("delete nftables table %s: %w", t.name, err)
	}
	t.forget()
	return nil
}

// Rewrite writes the table anew, in one transaction, as it is remembered, when
// somebody has something in it: others may have changed its rules.
func (t *Table) Rewrite() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.owners) == 0 {
		return nil
	}
	if err := t.install("", Rules{}); err != nil {
		return fmt.Errorf("write nftables table %s: %w", t.name, err)
	}
	return nil
}

// Prune deletes the chains of networks that no owner has an address in any more.
func (t *Table) Prune() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	unused := maps.Clone(t.chains)
	for owner, rules := range t.owners {
		for _, e := range elementsOf(owner, rules) {
			if e.network.IsValid() {
				delete(unused, e.chainName())
			}
		}
	}
	if !t.installed || len(unused) == 0 {
		return nil
	}
	conn, err := t.connect()
	if err != nil {
		return fmt.Errorf("prune nftables table %s: %w", t.name, err)
	}
	for name := range unused {
		conn.DelChain(&nftables.Chain{Name: name, Table: t.table()})
	}
	err = t.commit(conn)
	if missing(err) {
		t.installed = false // the next change writes it anew, without them
		return nil
	}
	if err != nil {
		return fmt.Errorf("prune nftables table %s: %w", t.name, err)
	}
	maps.DeleteFunc(t.chains, func(name string, _ bool) bool { return unused[name] })
	return nil
}

func (t *Table) table() *nftables.Table {
	return &nftables.Table{Name: t.name, Family: nftables.TableFamilyINet}
}

// setLocked makes next all that owner has.
func (t *Table) setLocked(owner string, next Rules) error {
	before, after := elementsOf(owner, t.owners[owner]), elementsOf(owner, next)
	for _, e := range after {
		if len(e.comment) > maxComment {
			return fmt.Errorf("nftables table %s: owner %s: name too long: %w", t.name, owner, errdefs.ErrInvalidArgument)
		}
	}
	add, del := t.difference(before, after)
	if len(add) == 0 && len(del) == 0 && t.installed {
		t.remember(owner, next, before, after)
		return nil
	}
	if len(add) == 0 && !t.installed && len(t.owners) == 0 {
		return nil
	}
	err := errNotInstalled
	if t.installed {
		err = t.change(add, del)
	}
	if missing(err) {
		err = t.install(owner, next)
	}
	if err != nil {
		return fmt.Errorf("change nftables table %s: %w", t.name, err)
	}
	t.remember(owner, next, before, after)
	return nil
}

var errNotInstalled = errors.New("table is not installed")

// missing reports whether err says that the kernel's table is not what is
// remembered of it.
func missing(err error) bool {
	return errors.Is(err, errNotInstalled) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST)
}

// difference finds the elements to add and to delete; those that other
// owners have as well are neither.
func (t *Table) difference(before, after []element) (add, del []element) {
	for _, e := range after {
		if t.refs[e.elementKey] == 0 {
			add = append(add, e)
		}
	}
	for _, e := range before {
		kept := slices.ContainsFunc(after, func(a element) bool { return a.elementKey == e.elementKey })
		if !kept && t.refs[e.elementKey] == 1 {
			del = append(del, e)
		}
	}
	return add, del
}

// remember records a change that was made.
func (t *Table) remember(owner string, next Rules, before, after []element) {
	for _, e := range before {
		if t.refs[e.elementKey]--; t.refs[e.elementKey] == 0 {
			delete(t.refs, e.elementKey)
		}
	}
	for _, e := range after {
		t.refs[e.elementKey]++
	}
	if next.empty() {
		delete(t.owners, owner)
	} else {
		t.owners[owner] = next
	}
}
