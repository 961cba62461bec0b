package network

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/network/netns"
)

const inNamespaces = "NODEAGENT_TEST_NAMESPACES"

// TestMain runs the tests in a network and mount namespace of their own when
// there is leave to make them, so that the machine's stay as they are.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespaces) == "" && os.Geteuid() == 0 && os.Getenv("NODEAGENT_TEST_ROOT") != "no" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inNamespaces+"=yes")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
		signal.Ignore(os.Interrupt)
		if err := cmd.Run(); cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(cmd.ProcessState.ExitCode())
	}
	if os.Getenv(inNamespaces) != "" && os.Getenv(childJob) == "" {
		if err := setUpHost(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// outside is a namespace that is to the tests' host what the rest of the world
// is to a host.
var outside *netns.Namespace

// uplinkIndex is the index of the link to it.
var uplinkIndex int

// setUpHost makes the namespace look like a host: lo, and a link to the
// outside with addresses and a default route.
func setUpHost() error {
	home, err := netns.Current()
	if err != nil {
		return err
	}
	defer home.Close()
	err = home.Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		outside, err = netns.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink0"
	uplink := &netlink.Veth{LinkAttrs: attrs, PeerName: "out0", PeerNamespace: netlink.NsFd(outside.FD())}
	if err := netlink.LinkAdd(uplink); err != nil {
		return err
	}
	uplinkIndex = uplink.Attrs().Index
	if err := setUpLinks("uplink0", "198.51.100.7/24", "2001:db8:7::7/64"); err != nil {
		return err
	}
	err = outside.Do(func() error { return setUpLinks("out0", "198.51.100.1/24", "2001:db8:7::1/64") })
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: uplink.Attrs().Index, Gw: []byte{198, 51, 100, 1}})
}

// setUpLinks brings lo and a link with addresses up.
func setUpLinks(name string, addrs ...string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, each := range []string{"lo", name} {
		link, err := h.LinkByName(each)
		if err != nil {
			return err
		}
		for _, text := range addrs {
			addr, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			if addr.IP.To4() == nil {
				addr.Flags = unix.IFA_F_NODAD
			}
			if each == name {
				if err := h.AddrAdd(link, addr); err != nil {
					return err
				}
			}
		}
		if err := h.LinkSetUp(link); err != nil {
			return err
		}
	}
	return nil
}

// rooted skips a test that cannot have namespaces of its own, and checks in
// the end that the test left nothing.
func rooted(t testing.TB) {
	t.Helper()
	if os.Getenv(inNamespaces) == "" {
		t.Skip("needs root")
	}
	goroutines := goleak.IgnoreCurrent()
	before := world(t)
	t.Cleanup(func() {
		deadline := time.Now().Add(10 * time.Second)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			left := slices.DeleteFunc(world(t), func(line string) bool { return slices.Contains(before, line) })
			if len(left) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
				break
			}
			<-tick.C
		}
		if err := goleak.Find(goroutines); err != nil {
			t.Error(err)
		}
	})
}

// world lists links, addresses, routes, rules, mounts and descriptors.
func world(t testing.TB) []string {
	t.Helper()
	var lines []string
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		lines = append(lines, "link "+link.Attrs().Name)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range addrs {
		if settles(addr.IP, addr.LinkIndex) {
			continue
		}
		lines = append(lines, "address "+addr.IPNet.String())
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range routes {
		if route.Dst != nil && settles(route.Dst.IP, route.LinkIndex) {
			continue
		}
		lines = append(lines, "route "+route.String())
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		lines = append(lines, "mount "+strings.Join(strings.Fields(line)[3:5], " "))
	}
	// The virtual machine does not have the program.
	if _, err := exec.LookPath("nft"); err == nil {
		for line := range strings.Lines(nft(t, "list", "ruleset")) {
			lines = append(lines, "rule "+line)
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil {
			continue
		}
		kind, _, _ := strings.Cut(target, ":[")
		if strings.HasPrefix(kind, "anon_inode") || strings.HasPrefix(kind, "/proc") {
			continue
		}
		kinds[kind]++
		lines = append(lines, fmt.Sprintf("descriptor %s %d", kind, kinds[kind]))
	}
	return lines
}

// settles tells the uplink's own address, which the kernel gives it some time
// after it came up.
func settles(ip net.IP, index int) bool {
	return index == uplinkIndex && ip.IsLinkLocalUnicast()
}

func nft(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", append([]string{"-s"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// newNetNS pins a new network namespace; the test unpins it in the end.
func newNetNS(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "net")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	// Do lends a thread that goes home afterwards.
	err = home.Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { dropNetNS(t, path) })
	return path
}

// dropNetNS unpins a namespace; nil when it is done already.
func dropNetNS(t testing.TB, path string) {
	t.Helper()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		t.Errorf("unpin %s: %v", path, err)
	}
}
