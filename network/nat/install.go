package nat

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

var (
	addressPort4 = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	addressPort6 = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService)
	protoPort    = nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	hostPort4    = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	linkPair     = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName)
	hostPort6    = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)
)

// sets describes the table's sets and maps anew, since the library writes
// into them.
func sets(table *nftables.Table) map[string]*nftables.Set {
	list := []*nftables.Set{
		{Name: setSources4, IsMap: true, KeyType: nftables.TypeIPAddr, DataType: nftables.TypeVerdict},
		{Name: setSources6, IsMap: true, KeyType: nftables.TypeIP6Addr, DataType: nftables.TypeVerdict},
		{Name: setTargets4, IsMap: true, KeyType: nftables.TypeIPAddr, DataType: nftables.TypeVerdict},
		{Name: setTargets6, IsMap: true, KeyType: nftables.TypeIP6Addr, DataType: nftables.TypeVerdict},
		{Name: setPorts4, IsMap: true, Concatenation: true, KeyType: protoPort, DataType: addressPort4},
		{Name: setPorts6, IsMap: true, Concatenation: true, KeyType: protoPort, DataType: addressPort6},
		{Name: setHostPorts4, IsMap: true, Concatenation: true, KeyType: hostPort4, DataType: addressPort4},
		{Name: setHostPorts6, IsMap: true, Concatenation: true, KeyType: hostPort6, DataType: addressPort6},
		{Name: setPublished, Concatenation: true, KeyType: protoPort},
		{Name: setLinks, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian},
		{Name: setBridges, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian},
		{Name: setSameBridge, Concatenation: true, KeyType: linkPair},
		{Name: setInternal, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian},
	}
	byName := map[string]*nftables.Set{}
	for _, set := range list {
		set.Table = table
		byName[set.Name] = set
	}
	return byName
}

// connect returns the table's connection. It stays open, since the kernel has
// who closes one wait until all that was ever deleted is freed, which takes
// longer than everything else of a change.
func (t *Table) connect() (*nftables.Conn, error) {
	// What a former change has left unsent is not for this one.
	if t.conn != nil && !t.clean {
		t.disconnect()
	}
	if t.conn == nil {
		conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(t.prepareSocket))
		if err != nil {
			return nil, err
		}
		t.conn = conn
	}
	t.clean = false
	// The kernel answers before it returns from being asked. What is lost after all
	// must not hold up everybody who wants the lock.
	return t.conn, t.socket.SetReadDeadline(time.Now().Add(answerLimit))
}

const (
	// answerLimit bounds the wait for the kernel's answers to one change.
	answerLimit = 30 * time.Second
	// socketBuffer bounds, in bytes, the requests of a change and the answers to it, of
	// which the kernel takes and gives all at once: some 200 a pod's element, and a
	// table that is written anew has those of all pods. It is not set aside.
	socketBuffer = 64 << 20
)

// prepareSocket makes a socket good for changes of any size.
func (t *Table) prepareSocket(socket *netlink.Conn) error {
	t.socket = socket
	return errors.Join(socket.SetWriteBuffer(socketBuffer), socket.SetReadBuffer(socketBuffer))
}

// commit sends a transaction.
func (t *Table) commit(conn *nftables.Conn) error {
	err := conn.Flush()
	t.clean = err == nil
	return err
}

func (t *Table) disconnect() {
	if t.conn != nil {
		t.conn.CloseLasting()
		t.conn, t.socket = nil, nil
	}
}

// Close lets go of the connection to the kernel; the table stays as it is. The
// next change connects again.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disconnect()
}

// install writes the whole table, in one transaction, with what every owner
// has and with next as what owner has. What was in it before is gone.
func (t *Table) install(owner string, next Rules) error {
	conn, err := t.connect()
	if err != nil {
		return err
	}
	table := conn.AddTable(t.table())
	conn.DelTable(table)
	conn.AddTable(table)
	byName := sets(table)
	if err := addSets(conn, byName); err != nil {
		return err
	}
	writeRules(conn, table, byName)

	chains := map[string]bool{}
	owners := maps.Clone(t.owners)
	owners[owner] = next
	elements := map[elementKey]element{}
	for name, rules := range owners {
		for _, e := range elementsOf(name, rules) {
			elements[e.elementKey] = e
		}
	}
	for e := range maps.Values(elements) {
		if err := addElement(conn, byName, e, chains); err != nil {
			return err
		}
	}
	if err := t.commit(conn); err != nil {
		return err
	}
	t.chains, t.installed = chains, true
	return nil
}

// addSets puts the sets into a transaction.
func addSets(conn *nftables.Conn, byName map[string]*nftables.Set) error {
	installMu.Lock()
	defer installMu.Unlock()
	for _, set := range byName {
		if err := conn.AddSet(set, nil); err != nil {
			return err
		}
	}
	return nil
}

// change adds and deletes elements in one transaction.
func (t *Table) change(add, del []element) error {
	conn, err := t.connect()
	if err != nil {
		return err
	}
	byName := sets(t.table())
	chains := maps.Clone(t.chains)
	for _, e := range del {
		entry := nftables.SetElement{Key: []byte(e.key)}
		if err := conn.SetDeleteElements(byName[e.set], []nftables.SetElement{entry}); err != nil {
			return err
		}
	}
	for _, e := range add {
		if err := addElement(conn, byName, e, chains); err != nil {
			return err
		}
	}
	if err := t.commit(conn); err != nil {
		return err
	}
	t.chains = chains
	return nil
}

// addElement puts an element, and the chain it leads to, into a transaction.
func addElement(conn *nftables.Conn, byName map[string]*nftables.Set, e element, chains map[string]bool) error {
	set := byName[e.set]
	entry := nftables.SetElement{Key: []byte(e.key), Comment: e.comment}
	if e.value != "" {
		entry.Val = []byte(e.value)
	}
	if e.network.IsValid() {
		name := e.chainName()
		if !chains[name] {
			chains[name] = true
			writeNetworkChain(conn, set.Table, e)
		}
		entry.VerdictData = &expr.Verdict{Kind: expr.VerdictJump, Chain: name}
	}
	return conn.SetAddElements(set, []nftables.SetElement{entry})
}

// load reads the kernel's table. A table that cannot be understood counts as
// one that is not there, and will be written anew. A kernel without nftables
// has none; the first change will say so.
func (t *Table) load() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table, err := conn.ListTableOfFamily(t.name, nftables.TableFamilyINet)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPROTONOSUPPORT), err == nil && table == nil:
		return nil
	}
	if err != nil {
		return err
	}
	if err := t.loadElements(conn); err != nil {
		t.forget()
		return nil
	}
	t.installed = true
	return nil
}

func (t *Table) loadElements(conn *nftables.Conn) error {
	found := map[string]Rules{}
	for name, set := range sets(t.table()) {
		elements, err := conn.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		for _, e := range elements {
			if err := adopt(found, name, e); err != nil {
				return err
			}
		}
	}
	for owner, rules := range found {
		t.remember(owner, rules, nil, elementsOf(owner, rules))
	}
	return t.loadChains(conn)
}

// adopt gives an element found to its owner.
func adopt(found map[string]Rules, set string, e nftables.SetElement) error {
	switch set {
	case setSources4, setSources6, setTargets4, setTargets6:
		owner, prefix, err := parseAddress(set, e.Key, e.Comment)
		if err != nil {
			return err
		}
		rules := found[owner]
		if set == setSources4 || set == setSources6 {
			rules.Sources = append(rules.Sources, prefix)
		} else {
			rules.Targets = append(rules.Targets, prefix)
		}
		found[owner] = rules
	case setPorts4, setPorts6, setHostPorts4, setHostPorts6:
		owner, link, port, err := parsePort(set, e.Key, e.Val, e.Comment)
		if err != nil {
			return err
		}
		rules := found[owner]
		rules.Link, rules.Ports = link, append(rules.Ports, port)
		found[owner] = rules
	case setBridges:
		owner, bridge, err := parseBridge(e.Key, e.Comment)
		if err != nil {
			return err
		}
		rules := found[owner]
		rules.Bridge = bridge
		found[owner] = rules
	}
	return nil
}

// loadChains notes the networks' chains, also those that nothing leads to any
// more.
func (t *Table) loadChains(conn *nftables.Conn) error {
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, chain := range chains {
		for _, prefix := range chainPrefixes {
			if chain.Table.Name == t.name && strings.HasPrefix(chain.Name, prefix) {
				t.chains[chain.Name] = true
			}
		}
	}
	return nil
}
