package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/network/netns"
)

// conflist is a configuration of the reference plugins, with addresses kept
// in data.
func conflist(data string) string {
	return fmt.Sprintf(`{
  "cniVersion": "1.0.0", "name": "cni-test",
  "plugins": [
    {"type": "bridge", "bridge": "cnitest0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]],
              "routes": [{"dst": "203.0.113.0/24"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    {"type": "firewall"}
  ]
}`, data)
}

func writeConf(t testing.TB, cfg Config, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(cfg.ConfDir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ways are the two ways to carry out the reference plugins.
func ways(t *testing.T, test func(t *testing.T, cfg Config)) {
	for _, builtins := range []bool{true, false} {
		name := map[bool]string{true: "builtin", false: "executed"}[builtins]
		t.Run(name, func(t *testing.T) {
			rooted(t)
			cfg := testConfig(t)
			cfg.BuiltinPlugins = builtins
			if !builtins {
				cfg.BinDirs = []string{testenv.CNIPlugins(t)}
			}
			writeConf(t, cfg, "10-test.conflist", conflist(filepath.Join(t.TempDir(), "addresses")))
			t.Cleanup(func() { tidy(t) })
			test(t, cfg)
		})
	}
}

// tidy removes what the plugins leave by design: the bridge and their chains.
func tidy(t testing.TB) {
	if err := removeBridge("cnitest0"); err != nil {
		t.Error(err)
	}
	for _, table := range []string{"nat", "filter"} {
		for _, program := range []string{"iptables", "ip6tables"} {
			if path, err := exec.LookPath(program); err == nil {
				exec.Command(path, "-t", table, "-F").Run()
				exec.Command(path, "-t", table, "-X").Run()
			}
		}
	}
	if _, err := exec.LookPath("nft"); err != nil {
		return
	}
	for line := range strings.Lines(nft(t, "list", "tables")) {
		// iptables-nft makes these, and the tests' host had none.
		exec.Command("nft", append([]string{"delete"}, strings.Fields(line)...)...).Run()
	}
}

func mustAdd(t testing.TB, m *Manager, a Attachment) *Result {
	t.Helper()
	result, err := m.Add(context.Background(), a)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func mustDel(t testing.TB, m *Manager, a Attachment) {
	t.Helper()
	if err := m.Del(context.Background(), a); err != nil {
		t.Error(err)
	}
	settle(t, m)
}

// settle waits until the links of pods that left are gone.
func settle(t testing.TB, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.reaper.drain(ctx); err != nil {
		t.Error(err)
	}
}

// TestReachability: who can talk to whom.
func TestReachability(t *testing.T) {
	ways(t, func(t *testing.T, cfg Config) {
		m := newManager(t, cfg)
		first, second := newPod(t), newPod(t)
		first.Ports = []PortMapping{
			{Protocol: TCP, HostPort: 8080, ContainerPort: 80}, {Protocol: UDP, HostPort: 8080, ContainerPort: 80},
			{Protocol: TCP, HostPort: 8081, ContainerPort: 80, HostIP: netip.MustParseAddr("198.51.100.7")},
		}
		one, two := mustAdd(t, m, first), mustAdd(t, m, second)
		host, out := hostPlace(t), place{"outside", outside}
		a, b := openPlace(t, "first pod", first.NetNS), openPlace(t, "second pod", second.NetNS)
		a.serve(t, 80)
		b.serve(t, 80)
		out.serve(t, 99)

		for _, addr := range two.Addresses {
			if seen := a.mustAsk(t, "tcp", netip.AddrPortFrom(addr.Addr(), 80).String()); !slices.ContainsFunc(one.Addresses, func(p netip.Prefix) bool { return p.Addr() == seen }) {
				t.Errorf("second pod sees first as %s", seen)
			}
		}
		for address, want := range map[string]string{"198.51.100.1:99": "198.51.100.7", "[2001:db8:7::1]:99": "2001:db8:7::7"} {
			if seen := a.mustAsk(t, "tcp", address); seen.String() != want {
				t.Errorf("outside sees the pod as %s, want %s", seen, want)
			}
		}
		for _, network := range []string{"tcp", "udp"} {
			host.mustAsk(t, network, "127.0.0.1:8080")
			for _, address := range []string{"198.51.100.7:8080", "[2001:db8:7::7]:8080"} {
				for _, from := range []place{host, out, a} {
					from.mustAsk(t, network, address)
				}
			}
		}
		out.mustAsk(t, "tcp", "198.51.100.7:8081")
		host.mustNotAsk(t, "tcp", "127.0.0.1:8081")
		if seen := out.mustAsk(t, "tcp", "198.51.100.7:8080"); seen.String() != "198.51.100.1" {
			t.Errorf("the pod sees a client as %s", seen)
		}
		mustDel(t, m, first)
		mustDel(t, m, second)
		host.mustNotAsk(t, "tcp", "127.0.0.1:8080")
	})
}

// TestSecondPodReachesHostPort: a pod of the same bridge uses another's port
// of the host, which the plugin's iptables backend allows as well.
func TestSecondPodReachesHostPort(t *testing.T) {
	ways(t, func(t *testing.T, cfg Config) {
		m := newManager(t, cfg)
		first, second := newPod(t), newPod(t)
		first.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
		mustAdd(t, m, first)
		mustAdd(t, m, second)
		openPlace(t, "first pod", first.NetNS).serve(t, 80)
		b := openPlace(t, "second pod", second.NetNS)
		b.mustAsk(t, "tcp", "198.51.100.7:8080")
		b.mustAsk(t, "tcp", "10.77.0.1:8080")
		mustDel(t, m, first)
		mustDel(t, m, second)
	})
}

// footprint is what a wired pod looks like from all sides.
type footprint struct {
	Result, Raw            any
	PodRoutes, PodAddrs    []string
	PodSysctls, HostValues map[string]string
	Link, Port             string
}

var hexNames = regexp.MustCompile(`veth(?:[0-9a-f]{11}|[0-9a-f]{8})|bwp[0-9a-f]{12}`)

// look describes a wired pod without what is random.
func look(t *testing.T, m *Manager, a Attachment, result *Result) footprint {
	t.Helper()
	var f footprint
	n, err := m.current("")
	if err != nil {
		t.Fatal(err)
	}
	conf, _ := runtimeConf(a)
	raw, err := m.libcni(n).GetNetworkListCachedResult(n.list, conf)
	if err != nil || raw == nil {
		t.Fatalf("cached result: %v", err)
	}
	f.Raw = normal(t, raw, a)
	f.Result = normal(t, result, a)
	f.HostValues = sysctls(t, "ipv6/conf/"+result.HostInterface+"/accept_ra", "ipv6/conf/cnitest0/accept_ra",
		"ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/cnitest0/route_localnet")
	link, err := netlink.LinkByName(result.HostInterface)
	if err != nil {
		t.Fatal(err)
	}
	master, err := netlink.LinkByIndex(link.Attrs().MasterIndex)
	if err != nil {
		t.Fatal(err)
	}
	port, err := netlink.LinkGetProtinfo(link)
	if err != nil {
		t.Fatal(err)
	}
	f.Port = fmt.Sprintf("%s %s %s %s", master.Attrs().Name, shape(link), link.Attrs().OperState, port.String())
	ns := openPlace(t, "pod", a.NetNS).ns
	err = ns.Do(func() error { return lookInside(t, &f) })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// shape is what of a link decides how fast it is.
func shape(link netlink.Link) string {
	a := link.Attrs()
	return fmt.Sprint("mtu ", a.MTU, " queues ", a.NumTxQueues, "/", a.NumRxQueues, " of ", a.TxQLen, " gso ", a.GSOMaxSize, "/", a.GSOMaxSegs,
		" gro ", a.GROMaxSize, " tso ", a.TSOMaxSize)
}

func lookInside(t *testing.T, f *footprint) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName("eth0")
	if err != nil {
		return err
	}
	f.Link = fmt.Sprintf("%s %s %s", link.Type(), shape(link), link.Attrs().OperState)
	routes, err := h.RouteList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, route := range routes {
		if route.Dst != nil && route.Dst.IP.IsLinkLocalUnicast() {
			continue
		}
		route.LinkIndex = 0
		f.PodRoutes = append(f.PodRoutes, route.String())
	}
	addrs, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		if !addr.IP.IsLinkLocalUnicast() {
			f.PodAddrs = append(f.PodAddrs, fmt.Sprintf("%s broadcast %s scope %d tentative %t", addr.IPNet, addr.Broadcast, addr.Scope, addr.Flags&unix.IFA_F_TENTATIVE != 0))
		}
	}
	f.PodSysctls = sysctls(t, "ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/accept_dad", "ipv6/conf/eth0/keep_addr_on_down",
		"ipv6/conf/eth0/disable_ipv6", "ipv6/conf/lo/disable_ipv6")
	return nil
}

func sysctls(t *testing.T, names ...string) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, name := range names {
		data, err := os.ReadFile("/proc/sys/net/" + name)
		if err != nil {
			t.Error(err)
		}
		values[hexNames.ReplaceAllString(name, "veth")] = strings.TrimSpace(string(data))
	}
	return values
}

var macs = regexp.MustCompile(`([0-9a-f]{2}:){5}[0-9a-f]{2}`)

// normal turns a value into what JSON says of it, without what is random.
func normal(t *testing.T, value any, a Attachment) any {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	text := hexNames.ReplaceAllString(macs.ReplaceAllString(string(data), "MAC"), "veth")
	text = strings.ReplaceAll(text, a.NetNS, "NETNS")
	var back any
	if err := json.Unmarshal([]byte(text), &back); err != nil {
		t.Fatal(err)
	}
	return back
}

// TestSameAsReference: both ways give the same result, links, addresses,
// routes and sysctls.
func TestSameAsReference(t *testing.T) {
	seen := map[bool]footprint{}
	ways(t, func(t *testing.T, cfg Config) {
		m := newManager(t, cfg)
		a := newPod(t)
		a.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
		result := mustAdd(t, m, a)
		if err := m.Check(context.Background(), a); err != nil {
			t.Error(err)
		}
		seen[cfg.BuiltinPlugins] = look(t, m, a, result)
		mustDel(t, m, a)
	})
	if len(seen) == 2 {
		if diff := cmp.Diff(seen[false], seen[true]); diff != "" {
			t.Errorf("executed (-) and built in (+) differ:\n%s", diff)
		}
	}
}

// TestOtherWayRound: what one agent added, another one deletes that is
// configured the other way; it is deleted the way it was added.
func TestOtherWayRound(t *testing.T) {
	ways(t, func(t *testing.T, cfg Config) {
		bin := testenv.CNIPlugins(t)
		cfg.BinDirs = []string{bin}
		m := newManager(t, cfg)
		first, second := newPod(t), newPod(t)
		first.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
		mustAdd(t, m, first)
		cfg.BuiltinPlugins = !cfg.BuiltinPlugins
		other, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(other.Close)
		defer other.Close()
		// Both hand out addresses of the same folder.
		if result := mustAdd(t, other, second); result.Addresses[0].Addr().String() != "10.77.0.3" {
			t.Errorf("second pod got %s", result.Addresses[0])
		}
		mustDel(t, other, first)
		mustDel(t, m, second)
		for _, line := range world(t) {
			if strings.Contains(line, "link veth") || strings.Contains(line, "8080") || strings.Contains(line, first.PodID) {
				t.Errorf("left: %s", line)
			}
		}
	})
}

// TestPluginDeletesOurs: the plugin's own DEL, without any record of ours,
// takes links and addresses back that were added in process.
func TestPluginDeletesOurs(t *testing.T) {
	rooted(t)
	bin := testenv.CNIPlugins(t)
	cfg := testConfig(t)
	data := filepath.Join(t.TempDir(), "addresses")
	writeConf(t, cfg, "10-test.conflist", conflist(data))
	t.Cleanup(func() { tidy(t) })
	m := newManager(t, cfg)
	a := newPod(t)
	result := mustAdd(t, m, a)
	cmd := exec.Command(filepath.Join(bin, "bridge"))
	cmd.Env = []string{"CNI_COMMAND=DEL", "CNI_CONTAINERID=" + a.PodID, "CNI_NETNS=" + a.NetNS, "CNI_IFNAME=eth0", "CNI_PATH=" + bin, "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "cni-test", "type": "bridge", "bridge": "cnitest0",
		"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]}}`, data))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := netlink.LinkByName(result.HostInterface); err == nil {
		t.Errorf("%s is left", result.HostInterface)
	}
	if _, err := os.Stat(filepath.Join(data, "cni-test", "10.77.0.2")); err == nil {
		t.Error("the address is left")
	}
	mustDel(t, m, a)
}

// TestLoopback: the pod's loopback is up without a plugin.
func TestLoopback(t *testing.T) {
	ways(t, func(t *testing.T, cfg Config) {
		m := newManager(t, cfg)
		a := newPod(t)
		mustAdd(t, m, a)
		pod := openPlace(t, "pod", a.NetNS)
		pod.serve(t, 80)
		pod.mustAsk(t, "tcp", "127.0.0.1:80")
		pod.mustAsk(t, "tcp", "[::1]:80")
		mustDel(t, m, a)
		if _, err := netns.Open(a.NetNS); err != nil {
			t.Error(err)
		}
	})
}
