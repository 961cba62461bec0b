package leak_test

import (
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/nodeagent/nodeagent/internal/leak"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

// inNamespace moves the test's thread to a network namespace of its own; the thread ends with the test.
func inNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
}

// Links, addresses, routes, tables, chains, sets and rules that were added are each told, and only they.
func TestNetworkIsSeen(t *testing.T) {
	testenv.Root(t)
	inNamespace(t)
	before, err := leak.Take()
	if err != nil {
		t.Fatal(err)
	}
	addLink(t)
	addRule(t)
	after, err := leak.Take()
	if err != nil {
		t.Fatal(err)
	}
	found := before.Newer(after)
	for _, want := range []string{
		"link: veth leak0", "address: 192.0.2.1/24", "route: 192.0.2.0/24", "packet filter: table leaked",
		"packet filter: chain leaked own", "packet filter: rule in chain leaked own", "packet filter: set leaked ports",
	} {
		if !slices.ContainsFunc(found, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("%q is not among %q", want, found)
		}
	}
	if again := after.Newer(after); len(again) != 0 {
		t.Errorf("newer than itself: %q", again)
	}
}

func addLink(t *testing.T) {
	t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "leak0"}, PeerName: "leak1"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	peer, err := netlink.LinkByName("leak1")
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []netlink.Link{peer, link} {
		if err := netlink.LinkSetUp(end); err != nil {
			t.Fatal(err)
		}
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(link, address); err != nil {
		t.Fatal(err)
	}
}

func addRule(t *testing.T) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "leaked"})
	chain := conn.AddChain(&nftables.Chain{Table: table, Name: "own"})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain})
	if err := conn.AddSet(&nftables.Set{Table: table, Name: "ports", KeyType: nftables.TypeInetService}, nil); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}
