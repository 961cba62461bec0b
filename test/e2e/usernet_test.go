package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// ctlFails runs nodectl, which must fail, and returns what it wrote to standard error but for where to read more.
func (n *node) ctlFails(args ...string) string {
	n.t.Helper()
	out := n.Nodectl(args...)
	if out.Code == 0 {
		n.t.Fatalf("nodectl %s succeeds: %s", strings.Join(args, " "), out.Stdout)
	}
	what, _, _ := strings.Cut(strings.TrimSpace(out.Stderr), "\n\nRun 'nodectl")
	return what
}

// sleeper starts a container that does nothing, with the flags given.
func (n *node) sleeper(name string, flags ...string) string {
	n.t.Helper()
	return n.ctl(append(append([]string{"run", "-d", "--name", name}, flags...), images.Busybox, "sleep", "1000")...)
}

// reach says whether a container reaches another by ping.
func (n *node) reach(from, to string) bool {
	n.t.Helper()
	return n.Nodectl("exec", from, "ping", "-c", "1", "-W", "1", to).Code == 0
}

// defaultRoute is the line of a container's default route; empty without one.
func (n *node) defaultRoute(name string) string {
	n.t.Helper()
	for line := range strings.Lines(n.ctl("exec", name, "ip", "route")) {
		if strings.HasPrefix(line, "default") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// format is what inspect says by a template.
func (n *node) format(name, template string) string {
	n.t.Helper()
	return n.ctl("inspect", "-f", template, name)
}

// Containers on a network of a person's reach each other by name, alias and short ID, those on another network not.
func TestUserNetwork(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	id := n.ctl("network", "create", "--label", "tier=back", "front")
	n.ctl("network", "create", "back")
	if link, err := netlink.LinkByName("br-" + id[:12]); err != nil || link.Type() != "bridge" {
		t.Errorf("the network's bridge: %v", err)
	}
	web := n.sleeper("web", "--network", "front", "--network-alias", "www")
	n.sleeper("client", "--network", "front")
	n.sleeper("other", "--network", "back")
	for _, name := range []string{"web", "www", web[:12], "web.front", "client"} {
		if !n.reach("client", name) {
			t.Errorf("client does not reach %s: %s", name, n.Nodectl("exec", "client", "nslookup", name).Stdout)
		}
	}
	address := n.format("web", "{{.NetworkSettings.Networks.front.IPAddress}}")
	if n.reach("other", "web") || n.reach("other", address) {
		t.Error("a container reaches one on another network")
	}
	if out := n.ctl("exec", "client", "nslookup", address); !strings.Contains(out, "web.front") {
		t.Errorf("name of %s: %s", address, out)
	}
	if out := n.ctl("exec", "client", "cat", "/etc/resolv.conf"); !strings.HasPrefix(out, "nameserver 127.0.0.11\n") {
		t.Errorf("resolv.conf: %s", out)
	}
	var inspected []struct {
		IPAM struct {
			Config []struct{ Subnet, Gateway string }
		}
		Containers map[string]struct{ Name, IPv4Address string }
		Labels     map[string]string
	}
	if err := json.Unmarshal([]byte(n.ctl("network", "inspect", "front")), &inspected); err != nil || len(inspected) != 1 {
		t.Fatalf("network inspect: %v", err)
	}
	if got := inspected[0]; got.Containers[web].IPv4Address != address+"/16" || got.Labels["tier"] != "back" || len(got.IPAM.Config) != 1 {
		t.Errorf("network inspect: %+v", got)
	}
	if out := n.ctlFails("network", "rm", "front"); !strings.Contains(out, "has active endpoints") {
		t.Errorf("network rm: %s", out)
	}
	n.ctl("rm", "-f", "web", "client", "other")
	n.ctl("network", "rm", "front", "back")
	if _, err := netlink.LinkByName("br-" + id[:12]); err == nil {
		t.Error("the bridge is left")
	}
}

// A killed agent's successor answers names again, and keeps networks and who is on them.
func TestUserNetworkSurvivesAgent(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	n.ctl("network", "create", "net")
	n.sleeper("one", "--network", "net")
	n.sleeper("two", "--network", "net")
	before := n.format("one", "{{json .NetworkSettings.Networks}}")
	n.Kill9()
	n.Start()
	if after := n.format("one", "{{json .NetworkSettings.Networks}}"); after != before {
		t.Errorf("networks were %s, and are %s", before, after)
	}
	if !n.reach("two", "one") {
		t.Error("names are not answered")
	}
	n.ctl("rm", "-f", "one", "two")
	n.ctl("network", "rm", "net")
}

// connect and disconnect change what a running container sees, and hold when it is stopped and started.
func TestUserNetworkConnect(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	n.ctl("network", "create", "--subnet", "10.201.0.0/24", "a")
	n.ctl("network", "create", "--subnet", "10.202.0.0/24", "b")
	n.sleeper("peer", "--network", "b")
	n.sleeper("box", "--network", "a")
	if n.reach("box", "peer") {
		t.Error("box reaches peer before it is connected")
	}
	n.ctl("network", "connect", "--ip", "10.202.0.77", "--alias", "boxy", "b", "box")
	if !n.reach("box", "peer") || !n.reach("peer", "boxy") {
		t.Error("box and peer do not reach each other")
	}
	if got := n.format("box", "{{.NetworkSettings.Networks.b.IPAddress}}"); got != "10.202.0.77" {
		t.Errorf("address on b: %s", got)
	}
	if out := n.ctl("exec", "box", "cat", "/etc/hosts"); !strings.Contains(out, "10.202.0.77\t") {
		t.Errorf("hosts: %s", out)
	}
	route := func() string { return n.defaultRoute("box") }
	if got := route(); !strings.Contains(got, "10.201.0.1") {
		t.Errorf("default route: %s", got)
	}
	n.ctl("stop", "-t", "1", "box")
	n.ctl("start", "box")
	if !n.reach("peer", "boxy") {
		t.Error("peer does not reach box after a stop and a start")
	}
	n.ctl("network", "disconnect", "a", "box")
	if got := route(); !strings.Contains(got, "10.202.0.1") {
		t.Errorf("default route without a: %s", got)
	}
	if got := n.format("box", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}"); strings.TrimSpace(got) != "b" {
		t.Errorf("networks: %s", got)
	}
	// The greater priority has it, whatever came first.
	n.ctl("network", "connect", "--gw-priority", "1", "a", "box")
	if got := route(); !strings.Contains(got, "10.201.0.1") {
		t.Errorf("default route by priority: %s", got)
	}
	n.ctl("network", "disconnect", "a", "box")
	n.ctlFails("network", "disconnect", "a", "box")
	n.ctl("rm", "-f", "box", "peer")
	if out := n.ctl("network", "prune", "-f"); !strings.Contains(out, "Deleted Networks:\na\nb") {
		t.Errorf("prune: %s", out)
	}
}

// The node's own network can be left and joined again.
func TestUserNetworkAndNode(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	n.ctl("network", "create", "net")
	n.sleeper("peer", "--network", "net")
	n.sleeper("box")
	n.ctl("network", "connect", "net", "box")
	if !n.reach("box", "peer") {
		t.Errorf("box does not reach peer: %s", n.Nodectl("exec", "box", "cat", "/etc/resolv.conf").Stdout)
	}
	names := func() string {
		return strings.TrimSpace(n.format("box", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}"))
	}
	if got := names(); got != "bridge net" {
		t.Errorf("networks: %s", got)
	}
	n.ctl("network", "disconnect", "bridge", "box")
	if got := names(); got != "net" || !n.reach("box", "peer") {
		t.Errorf("networks after leaving bridge: %s", got)
	}
	n.ctl("network", "connect", "bridge", "box")
	if got := names(); got != "bridge net" {
		t.Errorf("networks after joining bridge: %s", got)
	}
	n.ctl("network", "disconnect", "net", "box")
	if out := n.ctl("exec", "box", "cat", "/etc/resolv.conf"); strings.Contains(out, "127.0.0.11") {
		t.Errorf("resolv.conf: %s", out)
	}
	n.ctl("rm", "-f", "box", "peer")
	n.ctl("network", "rm", "net")
}

// An internal network leads nowhere, also for a container that adds a route by itself, and has no names of others
// (CVE-2024-29018).
func TestCVE_2024_29018(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	n.ctl("network", "create", "--internal", "--subnet", "10.203.0.0/24", "inside")
	n.ctl("network", "create", "--subnet", "10.204.0.0/24", "outside")
	n.sleeper("out", "--network", "outside")
	n.sleeper("in", "--network", "inside", "--cap-add", "NET_ADMIN")
	n.sleeper("in2", "--network", "inside")
	target := n.format("out", "{{.NetworkSettings.Networks.outside.IPAddress}}")
	if !n.reach("in", "in2") || n.reach("in", target) {
		t.Error("an internal network must reach itself and nothing else")
	}
	if out := n.defaultRoute("in"); out != "" {
		t.Errorf("default route: %s", out)
	}
	n.ctl("exec", "in", "ip", "route", "add", "default", "via", "10.203.0.1")
	if n.reach("in", target) {
		t.Error("a route of its own leads out")
	}
	if out := n.Nodectl("exec", "in", "nslookup", "example.com"); out.Code == 0 || !strings.Contains(out.Stdout+out.Stderr, "SERVFAIL") {
		t.Errorf("names of others: %s%s", out.Stdout, out.Stderr)
	}
	n.ctl("rm", "-f", "out", "in", "in2")
	n.ctl("network", "rm", "inside", "outside")
}

// Ports are published on networks of people's too, for both families.
func TestUserNetworkPorts(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	n.ctl("network", "create", "--ipv6", "net")
	port := freePort(t)
	n.ctl("run", "-d", "--name", "web", "--network", "net", "-p", fmt.Sprintf("%d:80", port), images.Busybox,
		"sh", "-c", "mkdir /www; echo It works >/www/index.html; exec httpd -f -h /www")
	place := func(field string) string { return n.format("web", "{{.NetworkSettings.Networks.net."+field+"}}") }
	for _, url := range []string{
		fmt.Sprintf("http://127.0.0.1:%d/", port),
		fmt.Sprintf("http://%s:%d/", place("Gateway"), port),
		fmt.Sprintf("http://[%s]:%d/", place("IPv6Gateway"), port),
		"http://" + place("IPAddress") + "/", "http://[" + place("GlobalIPv6Address") + "]/",
	} {
		if page := fetch(t, url); !strings.Contains(page, "It works") {
			t.Errorf("%s: %s", url, page)
		}
	}
	if out := n.ctl("port", "web"); !strings.Contains(out, fmt.Sprintf("80/tcp -> 0.0.0.0:%d", port)) {
		t.Errorf("port: %s", out)
	}
	if out := n.ctlFails("run", "-d", "--network", "net", "-p", fmt.Sprintf("%d:80", port), images.Busybox, "true"); !strings.Contains(out, "port is already allocated") {
		t.Errorf("a taken port: %s", out)
	}
	// The ports go where the container is.
	n.ctl("network", "create", "next")
	// Networks are apart, but for published ports.
	n.sleeper("far", "--network", "next")
	ask := fmt.Sprintf("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 %s %d", n.format("far", "{{.NetworkSettings.Networks.next.Gateway}}"), port)
	if page := n.ctl("exec", "far", "sh", "-c", ask); !strings.Contains(page, "It works") {
		t.Errorf("a published port of another network: %s", page)
	}
	if n.reach("far", place("IPAddress")) {
		t.Error("a container on another network is reached")
	}
	n.ctl("rm", "-f", "far")
	n.ctl("network", "connect", "next", "web")
	n.ctl("network", "disconnect", "net", "web")
	if page := fetch(t, fmt.Sprintf("http://127.0.0.1:%d/", port)); !strings.Contains(page, "It works") {
		t.Errorf("after a move: %s", page)
	}
	n.ctl("rm", "-f", "web")
	n.ctl("network", "rm", "net", "next")
}

// A container can have no network, the host's, and another container's.
func TestNetworkModes(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	if out := n.ctl("run", "--rm", "--network", "none", images.Busybox, "ip", "-o", "link"); strings.Count(out, "\n") != 0 || !strings.Contains(out, "lo") {
		t.Errorf("none: %s", out)
	}
	n.ctl("network", "create", "net")
	n.sleeper("one", "--network", "net", "--hostname", "box")
	own := n.ctl("exec", "one", "ip", "-o", "addr")
	if shared := n.ctl("run", "--rm", "--network", "container:one", images.Busybox, "ip", "-o", "addr"); shared != own {
		t.Errorf("container: %s, and not %s", shared, own)
	}
	if out := n.ctl("run", "--rm", "--network", "container:one", images.Busybox, "sh", "-c", "hostname; ping -c 1 -W 1 one >/dev/null && echo named"); out != "box\nnamed" {
		t.Errorf("container: %s", out)
	}
	host, err := os.ReadFile("/etc/hostname")
	if out := n.ctl("run", "--rm", "--network", "host", images.Busybox, "ip", "-o", "link"); err == nil && !strings.Contains(out, "br-") {
		t.Errorf("host %s: %s", host, out)
	}
	n.ctl("rm", "-f", "one")
	n.ctl("network", "rm", "net")
}

// What belongs to no container or network is gone after a kill at any step.
func TestUserNetworkKilledBetween(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	n.ctl("network", "create", "keep")
	n.sleeper("box")
	for _, step := range []string{
		"usernet.create.intent.after", "usernet.create.link.after", "usernet.add.intent.after", "usernet.connect.intent.after",
		"usernet.connect.wire.after", "usernet.connect.routes.after", "usernet.add.endpoints.after", "usernet.add.names.after",
		"usernet.remove.record removing.after", "usernet.remove.link.after", "network.bridge.down", "network.bridge.released",
	} {
		n.Stop()
		t.Setenv("NODEAGENT_FAILPOINTS", step+"=exit")
		n.Start()
		t.Setenv("NODEAGENT_FAILPOINTS", "")
		n.Nodectl("network", "create", "new")
		n.Nodectl("run", "-d", "--name", "victim", "--network", "keep", images.Busybox, "sleep", "1000")
		n.Nodectl("network", "connect", "keep", "box")
		n.Nodectl("network", "rm", "new")
		n.Nodectl("network", "disconnect", "keep", "box")
		testenv.Eventually(t, eventLimit, step+" kills the agent", func() error {
			if !n.Exited() {
				return errors.New("it runs")
			}
			return nil
		})
		n.Stop()
		n.Start()
		n.Nodectl("rm", "-f", "victim")
		n.Nodectl("network", "disconnect", "keep", "box")
		n.Nodectl("network", "rm", "new")
		if out := n.ctl("network", "ls", "--format", "{{.Name}}"); out != "bridge\nhost\nkeep\nnone" {
			t.Errorf("%s: networks: %s", step, out)
		}
		if left, _ := filepath.Glob(filepath.Join(n.State, "networks", "members", "*.json")); len(left) > 0 {
			t.Errorf("%s: members left: %v", step, left)
		}
	}
	// The network stays, for the agent's clean-up to take its bridge away.
	n.ctl("rm", "-f", "box")
}

// What run says of networks, and what inspect, ps and events say of it afterwards.
func TestNetworkFlags(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	n.ctl("network", "create", "--subnet", "10.205.0.0/24", "--ip-range", "10.205.0.128/25", "--aux-address", "printer=10.205.0.129", "net")
	if out := n.ctlFails("network", "create", "--subnet", "10.205.0.0/16", "wide"); !strings.Contains(out, "subnet 10.205.0.0/16 overlaps 10.205.0.0/24 of network net") {
		t.Errorf("overlap: %s", out)
	}
	if out := n.ctlFails("network", "create", "net"); out != "Error: network with name net already exists" {
		t.Errorf("taken name: %s", out)
	}
	if out := n.ctlFails("run", "--network", "nope", images.Busybox, "true"); out != "Error: network nope not found" {
		t.Errorf("unknown network: %s", out)
	}
	if out := n.ctlFails("network", "rm", "host", "nope"); !strings.Contains(out, "host is a pre-defined network and cannot be removed") || !strings.Contains(out, "network nope not found") {
		t.Errorf("rm: %s", out)
	}
	n.sleeper("fixed", "--network", "name=net,ip=10.205.0.9,alias=other", "--mac-address", "02:42:0a:cd:00:09", "--hostname", "Box",
		"--add-host", "host.docker.internal:host-gateway", "--dns-search", "example.org", "-P", "--expose", "8080")
	for template, want := range map[string]string{
		"{{.NetworkSettings.Networks.net.IPAddress}} {{.NetworkSettings.Networks.net.MacAddress}}": "10.205.0.9 02:42:0a:cd:00:09",
		"{{.NetworkSettings.Networks.net.IPAMConfig.IPv4Address}}":                                 "10.205.0.9",
		"{{.NetworkSettings.Networks.net.Aliases}} {{.HostConfig.NetworkMode}}":                    "[other] net",
	} {
		if got := n.format("fixed", template); got != want {
			t.Errorf("%s: %s", template, got)
		}
	}
	hosts := n.ctl("exec", "fixed", "cat", "/etc/hosts")
	if !strings.Contains(hosts, "10.205.0.128\thost.docker.internal") || !strings.Contains(hosts, "10.205.0.9\tBox") {
		t.Errorf("hosts: %s", hosts)
	}
	if got := n.ctl("exec", "fixed", "cat", "/etc/resolv.conf"); !strings.Contains(got, "search example.org\n") || !strings.Contains(got, "ndots:0") {
		t.Errorf("resolv.conf: %s", got)
	}
	if got := n.ctl("exec", "fixed", "cat", "/etc/hostname", "/sys/class/net/eth0/address"); got != "Box\n02:42:0a:cd:00:09" {
		t.Errorf("hostname and hardware address: %s", got)
	}
	if got := n.ctl("port", "fixed", "8080"); !strings.HasPrefix(got, "0.0.0.0:") {
		t.Errorf("port: %s", got)
	}
	if out := n.ctlFails("run", "--rm", "--network", "net", "--ip", "10.205.0.9", images.Busybox, "true"); out != "Error: Address already in use" {
		t.Errorf("taken address: %s", out)
	}
	n.sleeper("next", "--network", "net", "--link", "fixed:db")
	if got := n.format("next", "{{.NetworkSettings.Networks.net.IPAddress}}"); got != "10.205.0.130" {
		t.Errorf("the first free address of the range: %s", got)
	}
	for _, name := range []string{"db", "box", "other", "fixed"} {
		if !n.reach("next", name) {
			t.Errorf("next does not reach %s", name)
		}
	}
	if got := n.ctl("ps", "--filter", "network=net", "--format", "{{.Names}} {{.Networks}}"); got != "next net\nfixed net" {
		t.Errorf("ps: %s", got)
	}
	if got := n.ctl("inspect", "--type", "network", "-f", "{{.Driver}}", "net"); got != "bridge" {
		t.Errorf("inspect: %s", got)
	}
	if got := n.ctl("run", "--rm", "--mac-address", "02:42:0a:00:00:07", images.Busybox, "cat", "/sys/class/net/eth0/address"); got != "02:42:0a:00:00:07" {
		t.Errorf("hardware address on bridge: %s", got)
	}
	// Whoever does not run loses a network that is removed, and says so when it is to start.
	n.ctl("stop", "-t", "0", "fixed", "next")
	n.ctl("network", "rm", "net")
	if out := n.ctlFails("start", "next"); !strings.Contains(out, "network net not found") {
		t.Errorf("start: %s", out)
	}
	n.ctl("rm", "-f", "fixed", "next")
	events := n.ctl("events", "--since", "10m", "--until", "0s", "--filter", "type=network", "--format", "{{.Action}} {{index .Actor.Attributes \"name\"}}")
	for _, want := range []string{"create net", "connect net", "disconnect net", "destroy net"} {
		if !strings.Contains(events, want) {
			t.Errorf("no event %q: %s", want, events)
		}
	}
}

// A container's own resolvers are asked from where it is: here one at the gateway of its network, who sees that it is
// the container that asks.
func TestUserNetworkResolvers(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	n.ctl("network", "create", "--subnet", "10.206.0.0/24", "net")
	n.sleeper("client", "--network", "net", "--ip", "10.206.0.7", "--dns", "10.206.0.1")
	packets, err := net.ListenPacket("udp4", "10.206.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		asker, _, _ := net.SplitHostPort(w.RemoteAddr().String())
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(asker)}}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ActivateAndServe() }()
	defer func() { packets.Close(); <-done }()
	if out := n.Nodectl("exec", "client", "nslookup", "-type=a", "example.org"); !strings.Contains(out.Stdout, "Address: 10.206.0.7") {
		t.Errorf("a name of others: %s%s", out.Stdout, out.Stderr)
	}
	if !n.reach("client", "client") {
		t.Error("names on the network are not answered")
	}
	n.ctl("rm", "-f", "client")
	n.ctl("network", "rm", "net")
}

// reboot ends what a reboot ends: processes, mounts, the state folder, links.
func (n *node) reboot(links ...string) {
	n.t.Helper()
	n.Stop()
	testenv.Eventually(n.t, eventLimit, "all processes are gone", func() error {
		groups, _ := filepath.Glob("/proc/[0-9]*/cgroup")
		left := 0
		for _, path := range groups {
			text, err := os.ReadFile(path)
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			// Who has ended, and waits for somebody to ask how, has no command line.
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			if err == nil && len(command) > 0 && strings.Contains(string(text), n.CgroupParent+"/") {
				left++
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if left > 0 {
			return fmt.Errorf("%d are left", left)
		}
		return nil
	})
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(n.State))
	n.Must("list mounts", err)
	for _, m := range slices.Backward(mounts) {
		n.Must("unmount", unix.Unmount(m.Mountpoint, unix.MNT_DETACH))
	}
	n.Must("remove the state folder", os.RemoveAll(n.State))
	for _, link := range links {
		n.deleteLink(link)
	}
	n.Start()
}

// After a reboot a container that is started has the networks it had last.
func TestUserNetworkAfterReboot(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	a, b := n.ctl("network", "create", "a"), n.ctl("network", "create", "b")
	n.sleeper("peer", "--network", "b", "--network-alias", "friend")
	n.sleeper("box", "--network", "a")
	n.sleeper("mixed")
	n.ctl("network", "connect", "--alias", "cube", "b", "box")
	n.ctl("network", "disconnect", "a", "box")
	n.ctl("network", "connect", "b", "mixed")
	n.reboot("br-"+a[:12], "br-"+b[:12])
	n.ctl("start", "peer", "box", "mixed")
	for name, want := range map[string]string{"box": "b", "mixed": "b bridge", "peer": "b"} {
		if got := strings.TrimSpace(n.format(name, "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}")); got != want {
			t.Errorf("networks of %s: %s", name, got)
		}
	}
	if !n.reach("box", "friend") || !n.reach("peer", "cube") || !n.reach("mixed", "peer") {
		t.Error("names are not answered")
	}
	n.ctl("rm", "-f", "peer", "box", "mixed")
	n.ctl("network", "rm", "a", "b")
}
