package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
)

// TestDefaultNetwork: dual stack, masqueraded, with host ports, and gone
// without a trace after Cleanup.
func TestDefaultNetwork(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	ctx := context.Background()
	if err := m.Status(ctx); err != nil {
		t.Fatal(err)
	}
	first, second := newPod(t), newPod(t)
	first.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
	one, two := mustAdd(t, m, first), mustAdd(t, m, second)
	if one.Addresses[0].String() != "10.88.0.2/16" || one.Gateway.String() != "10.88.0.1" || len(one.Addresses) != 2 || !one.Addresses[1].Addr().IsPrivate() {
		t.Errorf("got %+v", one)
	}
	if err := m.Check(ctx, first); err != nil {
		t.Error(err)
	}
	out, a, b := place{"outside", outside}, openPlace(t, "first", first.NetNS), openPlace(t, "second", second.NetNS)
	out.serve(t, 99)
	a.serve(t, 80)
	b.serve(t, 80)
	for _, addr := range two.Addresses {
		a.mustAsk(t, "tcp", netip.AddrPortFrom(addr.Addr(), 80).String())
	}
	a.mustAsk(t, "tcp", "198.51.100.1:99")
	a.mustAsk(t, "tcp", "[2001:db8:7::1]:99")
	hostPlace(t).mustAsk(t, "tcp", "127.0.0.1:8080")
	for _, from := range []place{out, a, b} {
		from.mustAsk(t, "tcp", "198.51.100.7:8080")
		from.mustAsk(t, "tcp", "[2001:db8:7::7]:8080")
	}
	mustDel(t, m, first)
	mustDel(t, m, second)
	if err := m.Cleanup(ctx); err != nil {
		t.Error(err)
	}
	if err := m.Cleanup(ctx); err != nil {
		t.Error(err)
	}
	mustAdd(t, m, first)
	mustDel(t, m, first)
}

// TestSubnetsAvoidRoutes: where the host has a route, pods get another subnet,
// and keep it.
func TestSubnetsAvoidRoutes(t *testing.T) {
	rooted(t)
	cfg := testConfig(t)
	uplink, err := netlink.LinkByName("uplink0")
	if err != nil {
		t.Fatal(err)
	}
	taken, err := netlink.ParseIPNet("10.88.128.0/17")
	if err != nil {
		t.Fatal(err)
	}
	route := &netlink.Route{LinkIndex: uplink.Attrs().Index, Dst: taken}
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, cfg)
	a := newPod(t)
	if result := mustAdd(t, m, a); result.Addresses[0].String() != "10.89.0.2/16" {
		t.Errorf("got %s", result.Addresses[0])
	}
	if err := netlink.RouteDel(route); err != nil {
		t.Fatal(err)
	}
	next, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Close)
	b := newPod(t)
	if result := mustAdd(t, next, b); result.Addresses[0].String() != "10.89.0.3/16" {
		t.Errorf("after a restart: got %s", result.Addresses[0])
	}
	mustDel(t, next, a)
	mustDel(t, next, b)
}

// TestTwoAgents: neither sees what the other has.
func TestTwoAgents(t *testing.T) {
	rooted(t)
	one, two := testConfig(t), testConfig(t)
	two.Instance = "other"
	m, n := newManager(t, one), newManager(t, two)
	a, b := newPod(t), newPod(t)
	first, second := mustAdd(t, m, a), mustAdd(t, n, b)
	if first.Addresses[0].Masked() == second.Addresses[0].Masked() {
		t.Errorf("both have %s", first.Addresses[0].Masked())
	}
	ctx := context.Background()
	if err := m.GC(ctx, nil); err != nil {
		t.Error(err)
	}
	if err := m.Cleanup(ctx); err != nil {
		t.Error(err)
	}
	if err := n.Check(ctx, b); err != nil {
		t.Error(err)
	}
	place{"outside", outside}.serve(t, 99)
	openPlace(t, "pod", b.NetNS).mustAsk(t, "tcp", "198.51.100.1:99")
	mustDel(t, n, b)
}

// TestNeighbours: an agent's GC leaves alone what another agent, and another
// runtime, have by the same configuration, in process and executed. It takes
// what is nobody's; the bridge plugin itself has no GC.
func TestNeighbours(t *testing.T) {
	ways(t, func(t *testing.T, one Config) {
		data := filepath.Join(t.TempDir(), "addresses")
		writeConf(t, one, "10-test.conflist", strings.Replace(conflist(data), `"cniVersion": "1.0.0"`, `"cniVersion": "1.1.0"`, 1))
		two := one
		dir := t.TempDir()
		two.RootDir, two.StateDir, two.Instance = filepath.Join(dir, "root"), tmpfs(t), "other"
		m, n := newManager(t, one), newManager(t, two)
		a, b := newPod(t), newPod(t)
		mustAdd(t, m, a)
		mustAdd(t, n, b)
		lease := func(ip, id string) string {
			path := filepath.Join(data, "cni-test", ip)
			if id != "" {
				if err := os.WriteFile(path, []byte(id+"\r\neth0"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			return path
		}
		theirs, nobodys := lease("10.77.0.40", "theirs"), lease("10.77.0.50", "nobody")
		results := filepath.Join(one.SharedDir, "results")
		if err := os.MkdirAll(results, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(results, "cni-test-theirs-eth0"), []byte(`{"kind": "cniCacheV1", "containerId": "theirs", "ifName": "eth0", "networkName": "cni-test"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		for agent, pod := range map[*Manager]Attachment{m: a, n: b} {
			if err := agent.GC(ctx, []Attachment{pod}); err != nil {
				t.Error(err)
			}
		}
		for path, there := range map[string]bool{lease("10.77.0.2", ""): true, lease("10.77.0.3", ""): true, theirs: true, nobodys: !one.BuiltinPlugins} {
			if _, err := os.Stat(path); (err == nil) != there {
				t.Errorf("%s: %v", path, err)
			}
		}
		mustDel(t, m, a)
		m.Close()
		words, err := filepath.Glob(filepath.Join(one.SharedDir, "nodeagent", "*"))
		if err != nil || len(words) != 1 {
			t.Errorf("words of agents with pods: %v, %v", words, err)
		}
		mustDel(t, n, b)
		n.Close()
		if err := os.RemoveAll(results); err != nil {
			t.Fatal(err)
		}
		n.unannounce()
		if _, err := os.Stat(filepath.Join(one.SharedDir, "nodeagent")); err == nil {
			t.Error("word is left of agents without pods")
		}
	})
}

// TestSetPodCIDR: new pods get addresses of it, now and after a restart; old
// ones keep theirs, and both can talk.
func TestSetPodCIDR(t *testing.T) {
	rooted(t)
	cfg := testConfig(t)
	m := newManager(t, cfg)
	ctx := context.Background()
	for _, bad := range [][]string{{}, {"10.9.0.0/31"}, {"10.9.0.0/24", "10.8.0.0/24"}, {"0.0.0.0/0"}} {
		var cidrs []netip.Prefix
		for _, text := range bad {
			cidrs = append(cidrs, netip.MustParsePrefix(text))
		}
		if err := m.SetPodCIDR(ctx, cidrs); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: got %v", bad, err)
		}
	}
	old := newPod(t)
	mustAdd(t, m, old)
	if err := m.SetPodCIDR(ctx, []netip.Prefix{netip.MustParsePrefix("10.66.7.0/24")}); err != nil {
		t.Fatal(err)
	}
	next, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Close)
	a := newPod(t)
	result := mustAdd(t, next, a)
	if len(result.Addresses) != 1 || result.Addresses[0].String() != "10.66.7.2/24" {
		t.Errorf("got %v", result.Addresses)
	}
	openPlace(t, "new", a.NetNS).serve(t, 80)
	openPlace(t, "old", old.NetNS).mustAsk(t, "tcp", "10.66.7.2:80")
	mustDel(t, next, old)
	mustDel(t, next, a)
}

// TestPodCIDRInTheWay: pods do not come while their subnet would cut the host
// off from its own, and come when that is over.
func TestPodCIDRInTheWay(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	ctx := context.Background()
	if err := m.SetPodCIDR(ctx, []netip.Prefix{netip.MustParsePrefix("198.51.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	a := newPod(t)
	for what, err := range map[string]error{"Status": m.Status(ctx), "Add": addError(m, a)} {
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "overlaps 198.51.100.7/24 of the host's uplink0") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if err := m.SetPodCIDR(ctx, []netip.Prefix{netip.MustParsePrefix("10.66.7.0/24")}); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, m, a)
	mustDel(t, m, a)
}

// TestCapabilities: a network that asks for ranges, hardware and other addresses
// is told, the same in process and executed.
func TestCapabilities(t *testing.T) {
	ways(t, func(t *testing.T, cfg Config) {
		writeConf(t, cfg, "05-told.conflist", fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "told", "plugins": [
			{"type": "bridge", "bridge": "cnitest0", "isDefaultGateway": true, "capabilities": {"ipRanges": true, "mac": true, "ips": true},
			 "ipam": {"type": "host-local", "dataDir": %q}}]}`, filepath.Join(t.TempDir(), "addresses")))
		m := newManager(t, cfg)
		ctx := context.Background()
		a := newPod(t)
		if cfg.BuiltinPlugins {
			for what, err := range map[string]error{"Status": m.Status(ctx), "Add": addError(m, a)} {
				if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "pod CIDR") {
					t.Errorf("%s: got %v", what, err)
				}
			}
		}
		if err := m.SetPodCIDR(ctx, []netip.Prefix{netip.MustParsePrefix("10.66.7.0/24"), netip.MustParsePrefix("fd66::/64")}); err != nil {
			t.Fatal(err)
		}
		if n, err := m.current(""); err != nil || cfg.BuiltinPlugins && !n.inProcess() {
			t.Fatalf("in process: %v, %v", n.why, err)
		}
		a.MAC, a.Addresses = "02:00:5e:00:53:17", []netip.Addr{netip.MustParseAddr("10.66.7.77"), netip.MustParseAddr("fd66::77")}
		result := mustAdd(t, m, a)
		if result.MAC != a.MAC || fmt.Sprint(result.Addresses) != "[10.66.7.77/24 fd66::77/64]" {
			t.Errorf("got %+v", result)
		}
		b := newPod(t)
		b.Subnets = []netip.Prefix{netip.MustParsePrefix("10.66.8.0/24")}
		b.MAC = "02:00"
		if err := addError(m, b); !errdefs.IsInvalidArgument(err) {
			t.Errorf("got %v", err)
		}
		b.MAC = ""
		if cfg.BuiltinPlugins { // the plugin says it otherwise
			if err := addError(m, b); err == nil || !strings.Contains(err.Error(), "10.66.7.1/24") {
				t.Errorf("got %v", err)
			}
		}
		mustDel(t, m, a)
	})
}

// TestCVE202567499: a published port catches nothing that is on its way to
// elsewhere.
func TestCVE202567499(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	first, second := newPod(t), newPod(t)
	first.Ports = []PortMapping{{Protocol: TCP, HostPort: 53, ContainerPort: 53}, {Protocol: UDP, HostPort: 53, ContainerPort: 53}}
	mustAdd(t, m, first)
	mustAdd(t, m, second)
	out := place{"outside", outside}
	out.serve(t, 53)
	// The first pod serves nothing, so that what is caught gets no answer.
	for _, network := range []string{"tcp", "udp"} {
		for _, address := range []string{"198.51.100.1:53", "[2001:db8:7::1]:53"} {
			openPlace(t, "second pod", second.NetNS).mustAsk(t, network, address)
			hostPlace(t).mustAsk(t, network, address)
		}
	}
	mustDel(t, m, first)
	mustDel(t, m, second)
}

// TestCVE20199946: a published port does not jump the queue: what others' rules,
// such as kube-proxy's of services, send elsewhere goes there, in whatever order
// the tables came.
func TestCVE20199946(t *testing.T) {
	service := func(t *testing.T) {
		nft(t, "add", "table", "ip", "services")
		t.Cleanup(func() { nft(t, "delete", "table", "ip", "services") })
		for hook, priority := range map[string]string{"prerouting": "dstnat", "output": "-100"} {
			nft(t, "add", "chain", "ip", "services", hook, "{ type nat hook "+hook+" priority "+priority+"; }")
			nft(t, "add", "rule", "ip", "services", hook, "ip daddr 198.51.100.7 tcp dport 8080 dnat to 198.51.100.1:99")
		}
		// The answer shall come by the host.
		nft(t, "add", "chain", "ip", "services", "back", "{ type nat hook postrouting priority 90; }")
		nft(t, "add", "rule", "ip", "services", "back", "ip daddr 198.51.100.1 masquerade")
	}
	for _, order := range []string{"service first", "pod first"} {
		t.Run(order, func(t *testing.T) {
			rooted(t)
			m := newManager(t, testConfig(t))
			if order == "service first" {
				service(t)
			}
			a, b := newPod(t), newPod(t)
			a.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
			mustAdd(t, m, a)
			mustAdd(t, m, b)
			if order != "service first" {
				service(t)
			}
			// The first pod serves nothing, so that what is caught gets no answer.
			place{"outside", outside}.serve(t, 99)
			hostPlace(t).mustAsk(t, "tcp", "198.51.100.7:8080")
			openPlace(t, "second pod", b.NetNS).mustAsk(t, "tcp", "198.51.100.7:8080")
			mustDel(t, m, a)
			mustDel(t, m, b)
		})
	}
}

// TestCVE20208558: though 127.0.0.0/8 is routed for published ports, a pod, or
// a neighbour of the host, does not reach what listens on the host's loopback.
func TestCVE20208558(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	a := newPod(t)
	a.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
	result := mustAdd(t, m, a)
	t.Cleanup(func() { mustDel(t, m, a) })
	hostPlace(t).serve(t, 7000)
	pod := openPlace(t, "pod", a.NetNS)
	pod.pretendLoopback(t, netip.AddrPortFrom(result.Gateway, 7001))
	for _, from := range []struct {
		place
		link, gateway string
	}{{pod, "eth0", result.Gateway.String()}, {place{"outside", outside}, "out0", "198.51.100.7"}} {
		from.mustAsk(t, "tcp", from.gateway+":7000")
		from.leadLoopback(t, from.link, from.gateway)
		from.mustNotAsk(t, "tcp", "127.0.0.1:7000")
	}
	// What is published stays reachable on the host's loopback.
	pod.serve(t, 80)
	hostPlace(t).mustAsk(t, "tcp", "127.0.0.1:8080")
}

// pretendLoopback sends a datagram to the host whose source is an address of
// loopback, and then an honest one: the host's programs, which may trust
// loopback, must see the second alone.
func (p place) pretendLoopback(t *testing.T, target netip.AddrPort) {
	t.Helper()
	server, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(target))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	err = p.ns.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		own, err := netlink.ParseAddr("127.9.9.9/32")
		if err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile("/proc/sys/net/ipv4/conf/eth0/route_localnet", []byte("1"), 0), netlink.AddrAdd(link, own)); err != nil {
			return err
		}
		for _, source := range []net.IP{own.IP, nil} {
			client, err := net.DialUDP("udp", &net.UDPAddr{IP: source}, net.UDPAddrFromAddrPort(target))
			if err != nil {
				return err
			}
			defer client.Close()
			if _, err := client.Write([]byte("?")); err != nil {
				return err
			}
		}
		return netlink.AddrDel(link, own)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, from, err := server.ReadFromUDPAddrPort(make([]byte, 8))
	if err != nil || from.Addr().Unmap().IsLoopback() {
		t.Errorf("the host got a datagram from %s: %v", from, err)
	}
}

// leadLoopback makes a place send what is for 127.0.0.1 to the host, as one
// does who wants to break in, until the test ends.
func (p place) leadLoopback(t *testing.T, name, gateway string) {
	t.Helper()
	own, err := netlink.ParseAddr("127.0.0.1/8")
	if err != nil {
		t.Fatal(err)
	}
	lo := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: 1}}
	route := &netlink.Route{Dst: netlink.NewIPNet(own.IP), Gw: netip.MustParseAddr(gateway).AsSlice()}
	set := func(value string) error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/route_localnet", []byte(value), 0)
	}
	err = p.ns.Do(func() error {
		found, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		route.LinkIndex = found.Attrs().Index
		return errors.Join(set("1"), netlink.AddrDel(lo, own), netlink.RouteAdd(route))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := p.ns.Do(func() error {
			return errors.Join(set("0"), netlink.RouteDel(route), netlink.AddrAdd(lo, own))
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestCVE202010749: the host takes no router advertisement from a pod.
func TestCVE202010749(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	a := newPod(t)
	result := mustAdd(t, m, a)
	n, err := m.current("")
	if err != nil {
		t.Fatal(err)
	}
	var plugin struct{ Bridge string }
	if err := json.Unmarshal(n.list.Plugins[0].Bytes, &plugin); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{result.HostInterface, plugin.Bridge} {
		value, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + link + "/accept_ra")
		if err != nil || strings.TrimSpace(string(value)) != "0" {
			t.Errorf("accept_ra of %s is %q: %v", link, value, err)
		}
	}
	mustDel(t, m, a)
}

// TestFlowsAreForgotten: a client that has long been sending to a UDP port
// reaches the pod that publishes it, and no longer once it is gone.
func TestFlowsAreForgotten(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	first, second := newPod(t), newPod(t)
	// With the first pod's rules the kernel tracks connections.
	mustAdd(t, m, first)
	var client net.Conn
	err := outside.Do(func() (err error) {
		client, err = net.Dial("udp", "198.51.100.7:5353")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	answer := func() error {
		if err := client.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		// What an earlier datagram met with is reported first.
		if _, err := client.Write([]byte("?")); err != nil {
			if _, err := client.Write([]byte("?")); err != nil {
				return err
			}
		}
		_, err := client.Read(make([]byte, 64))
		return err
	}
	if err := answer(); err == nil {
		t.Fatal("answered before anything is there")
	}
	second.Ports = []PortMapping{{Protocol: UDP, HostPort: 5353, ContainerPort: 53}}
	mustAdd(t, m, second)
	openPlace(t, "pod", second.NetNS).serve(t, 53)
	if err := answer(); err != nil {
		t.Error(err)
	}
	mustDel(t, m, second)
	// What was the pod's is now for whoever listens on the host.
	hostPlace(t).serve(t, 5353)
	if err := answer(); err != nil {
		t.Errorf("after the pod went: %v", err)
	}
	mustDel(t, m, first)
}

// TestArgumentsAreNotInjected: a name that would add to CNI_ARGS.
func TestArgumentsAreNotInjected(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	a := newPod(t)
	a.Name = "x;IP=10.88.0.77"
	if err := addError(m, a); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	a.Name, a.PodID = "x", "../x"
	if err := addError(m, a); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}

func TestRuntimeConf(t *testing.T) {
	a := Attachment{PodID: "p", Namespace: "n", Name: "m", UID: "u", Annotations: map[string]string{ingressAnnotation: "10M", egressAnnotation: "1.5Gi"},
		Ports: []PortMapping{{Protocol: UDP, HostPort: 1, ContainerPort: 2, HostIP: netip.MustParseAddr("::1")}}, DNSServers: []string{"192.0.2.1"}}
	conf, err := runtimeConf(a)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(conf.CapabilityArgs)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"ingressRate":10000000`, `"egressRate":1610612736`, `"hostIP":"::1"`, `"servers":["192.0.2.1"]`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%s is not in %s", want, data)
		}
	}
	for _, bad := range []string{"", "x", "1", "-5M", "5m", "9999P", "1e9", "10 M"} {
		if rate, err := parseRate(bad); err == nil {
			t.Errorf("%q is %d", bad, rate)
		}
	}
}

// FuzzConfig: whatever is in a file, it is refused or usable, and can be read
// again from its record.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(conflist(filepath.Join(os.TempDir(), "x"))))
	f.Add([]byte(`{"cniVersion": "0.3.1", "name": "x", "type": "bridge", "ipam": {"type": "host-local", "subnet": "10.0.0.0/24"}}`))
	f.Add([]byte(`{"cniVersions": ["1.1.0"], "name": "x", "plugins": [{"type": "a", "capabilities": {"ipRanges": true}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseConfig(data)
		if err != nil {
			return
		}
		n, err := prepare(list, true)
		if err != nil {
			return
		}
		again, err := newIntent(Attachment{PodID: "p"}, n).network()
		if err != nil {
			t.Fatalf("its record: %v", err)
		}
		if again.list.Name != list.Name || len(again.list.Plugins) != len(list.Plugins) || again.list.CNIVersion != list.CNIVersion {
			t.Fatalf("got %+v, want %+v", again.list, list)
		}
		for _, plugin := range again.list.Plugins {
			if strings.ContainsAny(plugin.Network.Type, "/\x00") {
				t.Fatalf("type %q", plugin.Network.Type)
			}
		}
	})
}
