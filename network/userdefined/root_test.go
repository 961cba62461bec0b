package userdefined

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/network/builtin"
	"github.com/nodeagent/nodeagent/network/nat"
	"github.com/nodeagent/nodeagent/network/netns"
	"github.com/nodeagent/nodeagent/sandbox/record"
)

const inNamespaces = "NODEAGENT_TEST_NAMESPACES"

// TestMain runs the tests in a network and mount namespace of their own when there is leave to make them.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespaces) != "" || os.Geteuid() != 0 || os.Getenv("NODEAGENT_TEST_ROOT") == "no" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespaces+"=yes")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Run(); cmd.ProcessState == nil {
		panic(err)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// node is a Manager on a network namespace of its own, and what it is made of.
type node struct {
	*Manager
	t     *testing.T
	dir   string
	table *nat.Table
	// names are those of pods that run, guarded by mu.
	mu    sync.Mutex
	names map[string][]string
	// known are the pods there are.
	known map[string]bool
}

// rooted gives a node whose links, rules and goroutines must be gone in the end.
func rooted(t *testing.T) *node {
	t.Helper()
	if os.Getenv(inNamespaces) == "" {
		t.Skip("needs root")
	}
	before, goroutines := world(t), goleak.IgnoreCurrent()
	n := &node{t: t, dir: t.TempDir(), names: map[string][]string{}, known: map[string]bool{}}
	if err := netlink.LinkSetUp(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: 1}}); err != nil {
		t.Fatal(err)
	}
	n.open()
	t.Cleanup(func() {
		for id := range n.known {
			n.must(n.Del(context.Background(), id))
		}
		for _, one := range n.Networks() {
			_, err := n.Remove(context.Background(), one.ID)
			n.must(err)
		}
		n.Close()
		n.must(n.table.Destroy())
		n.table.Close()
		if after := world(t); !slices.Equal(before, after) {
			t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
		if err := goleak.Find(goroutines); err != nil {
			t.Error(err)
		}
	})
	return n
}

// world lists links and rules.
func world(t *testing.T) []string {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, link := range links {
		lines = append(lines, link.Attrs().Name)
	}
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	return append(lines, string(out))
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// open makes the Manager, as an agent's start does.
func (n *node) open() {
	n.t.Helper()
	var err error
	n.table, err = nat.Open("usernet-test")
	n.must(err)
	networks, err := record.Open(filepath.Join(n.dir, "networks"), "network", 1)
	n.must(err)
	members, err := record.Open(filepath.Join(n.dir, "members"), "member", 1)
	n.must(err)
	resolv := filepath.Join(n.dir, "resolv.conf")
	n.must(os.WriteFile(resolv, []byte("nameserver 127.0.0.1\n"), 0o644))
	n.Manager, err = New(Config{
		StateDir: filepath.Join(n.dir, "state"), Instance: n.t.Name(), Networks: networks, Members: members,
		Plugins: builtin.New(n.table), Table: n.table, ResolvConf: resolv,
	})
	n.must(err)
	n.must(n.Recover(n.t.Context(), n.known))
	n.Serve(n.namesOf)
}

// namesOf are the names of a pod.
func (n *node) namesOf(pod string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.names[pod]
}

// call gives a pod names; without any it does not run.
func (n *node) call(pod string, names ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[pod] = names
}

// restart is what a killed agent and its successor are.
func (n *node) restart() {
	n.t.Helper()
	n.Close()
	n.table.Close()
	n.open()
}

// create makes a network.
func (n *node) create(req CreateRequest) Network {
	n.t.Helper()
	made, err := n.Create(n.t.Context(), req)
	n.must(err)
	return made
}

// pin makes a network namespace.
func (n *node) pin(name string) string {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	n.must(os.WriteFile(path, nil, 0o600))
	home, err := netns.Current()
	n.must(err)
	defer home.Close()
	n.must(home.Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}))
	n.t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

// pod pins a network namespace, and puts it on networks.
func (n *node) pod(name string, specs ...network.EndpointSpec) *netns.Namespace {
	n.t.Helper()
	path := n.pin(name)
	n.call(name, name)
	n.known[name] = true
	_, err := n.Add(n.t.Context(), network.Attachment{PodID: name, NetNS: path, Membership: &network.Membership{Endpoints: specs}})
	n.must(err)
	ns, err := netns.Open(path)
	n.must(err)
	n.t.Cleanup(func() { _ = ns.Close() })
	return ns
}

// on is an endpoint on a network.
func on(one Network) network.EndpointSpec { return network.EndpointSpec{Network: one.ID} }

// ask asks the pod's resolver.
func (n *node) ask(pod *netns.Namespace, name string, kind uint16) (string, int) {
	n.t.Helper()
	var conn net.Conn
	n.must(pod.Do(func() (err error) {
		conn, err = net.Dial("udp", Resolver.String()+":53")
		return err
	}))
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	via := &dns.Conn{Conn: conn}
	n.must(via.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)))
	reply, err := via.ReadMsg()
	n.must(err)
	var got []string
	for _, rr := range reply.Answer {
		fields := strings.Fields(rr.String())
		got = append(got, fields[len(fields)-1])
	}
	slices.Sort(got)
	return strings.Join(got, " "), reply.Rcode
}

// place is a pod's address on a network.
func (n *node) place(pod string, one Network) Endpoint {
	n.t.Helper()
	list, _, _ := n.Endpoints(pod)
	for _, e := range list {
		if e.Network == one.ID {
			return e
		}
	}
	n.t.Fatalf("pod %s is not on network %s", pod, one.Name)
	return Endpoint{}
}

// reaches says whether UDP from one pod arrives at an address of another.
func (n *node) reaches(from, to *netns.Namespace, at netip.Addr) bool {
	n.t.Helper()
	return n.delivers(from, to, at, 10*time.Second)
}

// cutOff says that nothing of the kind arrives, as far as can be told in a moment.
func (n *node) cutOff(from, to *netns.Namespace, at netip.Addr) bool {
	n.t.Helper()
	return !n.delivers(from, to, at, 500*time.Millisecond)
}

// delivers sends packets for as long, until one has arrived.
func (n *node) delivers(from, to *netns.Namespace, at netip.Addr, wait time.Duration) bool {
	n.t.Helper()
	var server net.PacketConn
	var client net.Conn
	n.must(to.Do(func() (err error) {
		server, err = net.ListenPacket("udp", net.JoinHostPort(at.String(), "7777"))
		return err
	}))
	defer server.Close()
	err := from.Do(func() (err error) {
		client, err = net.Dial("udp", net.JoinHostPort(at.String(), "7777"))
		return err
	})
	if errors.Is(err, unix.ENETUNREACH) {
		return false
	}
	n.must(err)
	defer client.Close()
	for until := time.Now().Add(wait); time.Now().Before(until); {
		// Refused or not routed yet: the next one may be.
		_, _ = client.Write([]byte("x"))
		_ = server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, _, err := server.ReadFrom(make([]byte, 8)); err == nil {
			return true
		}
	}
	return false
}

func TestNames(t *testing.T) {
	n := rooted(t)
	net1 := n.create(CreateRequest{Name: "one", IPv6: true})
	net2 := n.create(CreateRequest{Name: "two"})
	alias := on(net1)
	alias.Aliases = []string{"Db"}
	linked := on(net1)
	linked.Links = map[string]string{"store": "web"}
	n.pod("web", alias)
	n.pod("web2", alias)
	client := n.pod("client", linked, on(net2))
	other := n.pod("other", on(net2))
	web, web2 := n.place("web", net1), n.place("web2", net1)
	both := []string{web.Addr4.Addr().String(), web2.Addr4.Addr().String()}
	slices.Sort(both)
	for _, test := range []struct {
		pod  *netns.Namespace
		name string
		kind uint16
		want string
		code int
	}{
		{client, "web", dns.TypeA, web.Addr4.Addr().String(), 0},
		{client, "WEB.one", dns.TypeA, web.Addr4.Addr().String(), 0},
		{client, "web", dns.TypeAAAA, web.Addr6.Addr().String(), 0},
		{client, "db", dns.TypeA, strings.Join(both, " "), 0},
		{client, "store", dns.TypeA, web.Addr4.Addr().String(), 0},
		{client, "other", dns.TypeA, n.place("other", net2).Addr4.Addr().String(), 0},
		{other, "web", dns.TypeA, "", dns.RcodeServerFailure},
		{other, "client", dns.TypeA, n.place("client", net2).Addr4.Addr().String(), 0},
	} {
		if got, code := n.ask(test.pod, test.name, test.kind); got != test.want || code != test.code {
			t.Errorf("%s: %q, %s", test.name, got, dns.RcodeToString[code])
		}
	}
	reverse, err := dns.ReverseAddr(web.Addr4.Addr().String())
	n.must(err)
	if got, _ := n.ask(client, reverse, dns.TypePTR); got != "web.one." {
		t.Errorf("name of %s: %s", web.Addr4, got)
	}
	n.call("web")
	if got, _ := n.ask(client, "web", dns.TypeA); got != "" {
		t.Errorf("a pod that does not run has a name: %s", got)
	}
	n.call("web", "renamed")
	if got, _ := n.ask(client, "renamed", dns.TypeA); got != web.Addr4.Addr().String() {
		t.Errorf("renamed: %s", got)
	}
}

// A pod whose resolver is the one that asks is told at once that there is none.
func TestResolverOfItself(t *testing.T) {
	n := rooted(t)
	one := n.create(CreateRequest{Name: "one"})
	n.known["a"] = true
	path := n.pin("a")
	_, err := n.Add(t.Context(), network.Attachment{PodID: "a", NetNS: path, Membership: &network.Membership{
		Endpoints: []network.EndpointSpec{on(one)}, Servers: []netip.Addr{Resolver},
	}})
	n.must(err)
	ns, err := netns.Open(path)
	n.must(err)
	t.Cleanup(func() { _ = ns.Close() })
	began := time.Now()
	if _, code := n.ask(ns, "example.org", dns.TypeA); code != dns.RcodeServerFailure || time.Since(began) > time.Second {
		t.Errorf("%s after %v", dns.RcodeToString[code], time.Since(began))
	}
}

// What networks do not know is asked of the node's resolver, but for pods on internal networks alone (CVE-2024-29018).
func TestForwardCVE_2024_29018(t *testing.T) {
	n := rooted(t)
	packets, err := net.ListenPacket("udp4", "127.0.0.1:53")
	n.must(err)
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 9)}}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ActivateAndServe() }()
	t.Cleanup(func() { packets.Close(); <-done })
	open := n.create(CreateRequest{Name: "open"})
	inside := n.create(CreateRequest{Name: "inside", Internal: true})
	if got, _ := n.ask(n.pod("a", on(open)), "example.org", dns.TypeA); got != "192.0.2.9" {
		t.Errorf("on an open network: %q", got)
	}
	shut := n.pod("b", on(inside))
	if got, code := n.ask(shut, "example.org", dns.TypeA); got != "" || code != dns.RcodeServerFailure {
		t.Errorf("on an internal network: %q", got)
	}
	n.must(n.Connect(t.Context(), Pod{ID: "b"}, on(open)))
	if got, _ := n.ask(shut, "example.org", dns.TypeA); got != "192.0.2.9" {
		t.Errorf("after joining an open network: %q", got)
	}
}

// A network may be of IPv6 alone; names are asked for on the loopback, which always has IPv4.
func TestOnlyIPv6(t *testing.T) {
	n := rooted(t)
	six := n.create(CreateRequest{Name: "six", NoIPv4: true, IPv6: true})
	a, b := n.pod("a", on(six)), n.pod("b", on(six))
	at := n.place("b", six)
	if at.Addr4.IsValid() || !n.reaches(a, b, at.Addr6.Addr()) {
		t.Errorf("a does not reach b at %+v", at)
	}
	if got, code := n.ask(a, "b", dns.TypeAAAA); got != at.Addr6.Addr().String() || code != dns.RcodeSuccess {
		t.Errorf("address of b: %q", got)
	}
	if got, code := n.ask(a, "b", dns.TypeA); got != "" || code != dns.RcodeSuccess {
		t.Errorf("IPv4 address of b: %q %d", got, code)
	}
}

func TestIsolation(t *testing.T) {
	n := rooted(t)
	one, two := n.create(CreateRequest{Name: "one"}), n.create(CreateRequest{Name: "two"})
	inside := n.create(CreateRequest{Name: "inside", Internal: true})
	quiet := n.create(CreateRequest{Name: "quiet", Options: map[string]string{optionICC: "false"}})
	a, b, c, d := n.pod("a", on(one)), n.pod("b", on(one)), n.pod("c", on(two)), n.pod("d", on(inside), on(quiet))
	e := n.pod("e", on(quiet))
	for _, test := range []struct {
		what     string
		from, to *netns.Namespace
		at       netip.Prefix
		want     bool
	}{
		{"same network", a, b, n.place("b", one).Addr4, true},
		{"another network", a, c, n.place("c", two).Addr4, false},
		{"into an internal one", a, d, n.place("d", inside).Addr4, false},
		{"without communication between containers", d, e, n.place("e", quiet).Addr4, false},
	} {
		reached := n.reaches
		if !test.want {
			reached = func(from, to *netns.Namespace, at netip.Addr) bool { return !n.cutOff(from, to, at) }
		}
		if got := reached(test.from, test.to, test.at.Addr()); got != test.want {
			t.Errorf("%s: %v", test.what, got)
		}
	}
	n.must(n.Connect(t.Context(), Pod{ID: "a"}, on(two)))
	if !n.reaches(a, c, n.place("c", two).Addr4.Addr()) {
		t.Error("a joined the network of c and does not reach it")
	}
	n.must(n.Disconnect(t.Context(), "a", "two"))
	if !n.cutOff(a, c, n.place("c", two).Addr4.Addr()) {
		t.Error("a left the network of c and reaches it")
	}
	if err := n.Disconnect(t.Context(), "a", "two"); !errdefs.IsNotFound(err) {
		t.Errorf("leave twice: %v", err)
	}
}

// supported says whether the kernel can make links of a kind.
func supported(kind string) bool {
	parent := netlink.NewLinkAttrs()
	parent.Name = "trial0"
	pair := &netlink.Veth{LinkAttrs: parent, PeerName: "trial1"}
	if netlink.LinkAdd(pair) != nil {
		return false
	}
	defer func() { _ = netlink.LinkDel(pair) }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = "trial2", pair.Attrs().Index
	if kind == IPvlan {
		return netlink.LinkAdd(&netlink.IPVlan{LinkAttrs: attrs}) == nil
	}
	return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}) == nil
}

// The drivers that share a parent.
func TestVLANs(t *testing.T) {
	for driver, options := range map[string]map[string]string{
		Macvlan: {}, IPvlan: {}, "ipvlan l3": {optionIPvlanMode: "l3"},
	} {
		t.Run(driver, func(t *testing.T) {
			n := rooted(t)
			kind, _, _ := strings.Cut(driver, " ")
			if !supported(kind) {
				t.Skipf("the kernel has no %s", kind)
			}
			one := n.create(CreateRequest{Name: "lan", Driver: kind, Options: options, Subnets: []Subnet{{Prefix: prefix("10.55.0.0/24")}}})
			a, b := n.pod("a", on(one)), n.pod("b", on(one))
			if !n.reaches(a, b, n.place("b", one).Addr4.Addr()) {
				t.Error("pods do not reach each other")
			}
			if got, _ := n.ask(a, "b", dns.TypeA); got != n.place("b", one).Addr4.Addr().String() {
				t.Errorf("name: %q", got)
			}
			n.restart()
			n.must(n.Disconnect(t.Context(), "a", "lan"))
			if _, _, on := n.Endpoints("a"); on {
				t.Error("it is on the node's network")
			}
		})
	}
	n := rooted(t)
	if _, err := n.Create(t.Context(), CreateRequest{Name: "lan", Driver: Macvlan, Options: map[string]string{optionParent: "nope0"}}); err == nil ||
		!strings.Contains(err.Error(), "parent interface nope0 is not there") {
		t.Errorf("no parent: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	n := rooted(t)
	one := n.create(CreateRequest{Name: "one", Subnets: []Subnet{{
		Prefix: prefix("10.66.0.0/29"), Gateway: addr("10.66.0.1"), Auxiliary: map[string]netip.Addr{"printer": addr("10.66.0.2")},
	}}})
	for name, test := range map[string]struct {
		req  CreateRequest
		want string
	}{
		"name":    {CreateRequest{Name: "one"}, "network with name one already exists"},
		"overlap": {CreateRequest{Name: "two", Subnets: []Subnet{{Prefix: prefix("10.66.0.0/16")}}}, "Pool overlaps with other one on this address space"},
		"bridge":  {CreateRequest{Name: "two", Options: map[string]string{optionBridgeName: one.Link}}, "is already using"},
	} {
		if _, err := n.Create(t.Context(), test.req); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	n.pod("a", on(one))
	if got := n.place("a", one).Addr4; got != prefix("10.66.0.3/29") {
		t.Errorf("the first free address is 10.66.0.3, and not %s", got)
	}
	fixed := func(text string) error {
		spec := on(one)
		spec.IPv4 = addr(text)
		return n.CheckEndpoint(spec)
	}
	for text, want := range map[string]string{
		"10.66.0.1": "is the gateway", "10.66.0.2": "is the auxiliary address printer", "10.66.0.7": "is no address of a host", "10.67.0.1": "no configured subnet contains",
	} {
		if err := fixed(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, name := range []string{"b", "c", "d"} {
		n.pod(name, on(one))
	}
	// Those of the gateway, the printer and the pods are taken: the network is full, and who does not fit has nothing.
	n.pod("e")
	err := n.Connect(t.Context(), Pod{ID: "e"}, on(one))
	if err == nil || !strings.Contains(err.Error(), "no available addresses on this network's address pools") {
		t.Errorf("full: %v", err)
	}
	spec := on(one)
	spec.IPv4 = addr("10.66.0.3")
	if err := n.Connect(t.Context(), Pod{ID: "e"}, spec); err == nil || err.Error() != "Address already in use" {
		t.Errorf("taken: %v", err)
	}
	if list, _, _ := n.Endpoints("e"); len(list) != 0 {
		t.Errorf("what failed is left: %+v", list)
	}
	if _, err := n.Remove(t.Context(), "one"); err == nil || !strings.Contains(err.Error(), "has active endpoints") {
		t.Errorf("remove: %v", err)
	}
}

// A network may be removed while those on it do not run, who are told when they start.
func TestRemoveUnderStopped(t *testing.T) {
	n := rooted(t)
	one := n.create(CreateRequest{Name: "one"})
	n.pod("a", on(one))
	n.call("a")
	_, err := n.Remove(t.Context(), "one")
	n.must(err)
	if err := n.CheckNetworks("a"); !errdefs.IsNotFound(err) || err.Error() != "network one not found" {
		t.Errorf("check: %v", err)
	}
	n.restart()
	if err := n.CheckNetworks("a"); !errdefs.IsNotFound(err) {
		t.Errorf("check after a restart: %v", err)
	}
}

// What others took away comes back at the start; who is gone by then leaves nothing.
func TestRecover(t *testing.T) {
	n := rooted(t)
	one := n.create(CreateRequest{Name: "one", IPv6: true})
	a, b := n.pod("a", on(one)), n.pod("b", on(one))
	before := fmt.Sprint(n.Endpoints("a"))
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	n.restart()
	if after := fmt.Sprint(n.Endpoints("a")); after != before {
		t.Errorf("was %s, is %s", before, after)
	}
	if len(n.table.Owned(containerID("a")+"/eth0").Sources) == 0 {
		t.Error("its masquerading is not back")
	}
	if got, _ := n.ask(b, "a", dns.TypeA); got != n.place("a", one).Addr4.Addr().String() {
		t.Errorf("name: %q", got)
	}
	if !n.reaches(b, a, n.place("a", one).Addr4.Addr()) {
		t.Error("b does not reach a")
	}
	// A reboot: namespaces, links and rules are gone.
	n.must(a.Do(func() error { return nil }))
	delete(n.known, "b")
	n.restart()
	if got := n.Members(one.ID); !slices.Equal(got, []string{"a"}) {
		t.Errorf("members: %v", got)
	}
	if got, _ := n.ask(a, "b", dns.TypeA); got != "" {
		t.Errorf("b is gone and has a name: %s", got)
	}
	n.pod("c", on(one))
}

// What could not be undone is recorded, and given back with the pod.
func TestFailedUndoIsRecorded(t *testing.T) {
	n := rooted(t)
	one := n.create(CreateRequest{Name: "one"})
	n.known["a"] = true
	disable, err := failpoint.Enable("usernet.connect.wire.after=error:1,network.bridge.down=error:2")
	n.must(err)
	a := network.Attachment{PodID: "a", NetNS: n.pin("a"), Membership: &network.Membership{Endpoints: []network.EndpointSpec{on(one)}}}
	if _, err := n.Add(t.Context(), a); !errors.Is(err, failpoint.ErrInjected) {
		t.Errorf("got %v", err)
	}
	disable()
	if p := n.member("a"); p == nil || p.endpoint(one.ID) == nil {
		t.Fatalf("what is left is not recorded: %+v", p)
	}
	n.must(n.Del(t.Context(), "a"))
	left, err := filepath.Glob(filepath.Join(n.ipamDir(), one.ID, "[0-9]*"))
	if err != nil || len(left) > 0 || n.member("a") != nil {
		t.Errorf("left %v %v", left, err)
	}
	// A network that could not be made leaves nothing.
	disable, err = failpoint.Enable("usernet.create.link.after=error:1")
	n.must(err)
	if _, err := n.Create(t.Context(), CreateRequest{Name: "two"}); !errors.Is(err, failpoint.ErrInjected) {
		t.Errorf("got %v", err)
	}
	disable()
	if list := n.Networks(); len(list) != 1 {
		t.Errorf("networks %v", list)
	}
}

// Two agents on one machine choose other subnets and links, and leave each other's alone.
func TestTwoAgents(t *testing.T) {
	first := rooted(t)
	second := &node{t: t, dir: t.TempDir(), names: map[string][]string{}, known: map[string]bool{}}
	table, err := nat.Open("usernet-test-2")
	first.must(err)
	networks, err := record.Open(filepath.Join(second.dir, "networks"), "network", 1)
	first.must(err)
	members, err := record.Open(filepath.Join(second.dir, "members"), "member", 1)
	first.must(err)
	second.table = table
	second.Manager, err = New(Config{
		StateDir: filepath.Join(second.dir, "state"), Instance: "second", Networks: networks, Members: members,
		Plugins: builtin.New(table), Table: table, ResolvConf: "/dev/null",
	})
	first.must(err)
	second.Serve(second.namesOf)
	a, b := first.create(CreateRequest{Name: "net"}), second.create(CreateRequest{Name: "net"})
	if a.Link == b.Link || a.Subnets[0].Prefix.Overlaps(b.Subnets[0].Prefix) {
		t.Errorf("%s %s and %s %s", a.Link, a.Subnets[0].Prefix, b.Link, b.Subnets[0].Prefix)
	}
	one, two := first.pod("one", on(a)), first.pod("two", on(a))
	first.must(second.Recover(t.Context(), map[string]bool{}))
	_, err = second.Remove(t.Context(), "net")
	first.must(err)
	second.Close()
	first.must(table.Destroy())
	table.Close()
	if !first.reaches(one, two, first.place("two", a).Addr4.Addr()) {
		t.Error("the second agent took something of the first's away")
	}
}

// Many pods come, join, ask and go at once, and leave nothing.
func TestStorm(t *testing.T) {
	n := rooted(t)
	one, two := n.create(CreateRequest{Name: "one", IPv6: true}), n.create(CreateRequest{Name: "two"})
	var names []string
	for i := range 24 {
		names = append(names, fmt.Sprintf("pod%d", i))
	}
	paths := map[string]string{}
	for _, name := range names {
		paths[name] = n.pin(name)
		n.call(name, name)
		n.known[name] = true
	}
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			for range 3 {
				ctx := t.Context()
				_, err := n.Add(ctx, network.Attachment{PodID: name, NetNS: paths[name], Membership: &network.Membership{Endpoints: []network.EndpointSpec{on(one)}}})
				err = errors.Join(err, n.Connect(ctx, Pod{ID: name}, on(two)))
				if addrs, known := (zone{n.Manager, name}).Addresses(name + ".two"); !known || len(addrs) != 1 {
					err = errors.Join(err, fmt.Errorf("addresses %v", addrs))
				}
				err = errors.Join(err, n.Disconnect(ctx, name, "one"), n.Del(ctx, name))
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	if left, err := filepath.Glob(filepath.Join(n.dir, "members", "*")); err != nil || len(left) > 0 {
		t.Errorf("members left: %v %v", left, err)
	}
	for _, each := range []Network{one, two} {
		entries, _ := os.ReadDir(filepath.Join(n.ipamDir(), each.ID))
		for _, e := range entries {
			if _, err := netip.ParseAddr(e.Name()); err == nil {
				t.Errorf("address left: %s", e.Name())
			}
		}
	}
}

// Addresses of the host that a network binds ports to, where nobody says which.
func TestDefaultBindings(t *testing.T) {
	for want, options := range map[string]map[string]string{
		`[{80 8080 tcp }]`:                              nil,
		`[{80 8080 tcp 127.0.0.1} {80 8080 tcp ::}]`:    {optionHostIPv4: "127.0.0.1"},
		`[{80 8080 tcp 0.0.0.0} {80 8080 tcp fd00::1}]`: {optionHostIPv6: "fd00::1"},
	} {
		a := attaching{n: Network{Options: options}}
		if got := fmt.Sprint(a.defaultBindings(portMapping{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"})); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
