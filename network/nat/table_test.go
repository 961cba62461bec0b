package nat

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// TestMain runs the tests once more in a network namespace of their own when
// there is leave to make one.
func TestMain(m *testing.M) {
	const child = "NODEAGENT_TEST_NETNS"
	if os.Getenv(child) != "" || os.Geteuid() != 0 || os.Getenv("NODEAGENT_TEST_ROOT") == "no" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNET}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		panic(err)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

func ruleset(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft list ruleset: %v: %s", err, out)
	}
	return string(out)
}

func sample() (map[string]Rules, string) {
	return map[string]Rules{
		"aaa/eth0": {
			Sources: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/16"), netip.MustParsePrefix("fd00:1::2/64")},
			Published: Published{Link: "br0", Targets: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/16"), netip.MustParsePrefix("fd00:1::2/64")}, Ports: []Port{
				{Protocol: unix.IPPROTO_TCP, HostPort: 80, Target: netip.MustParseAddrPort("10.1.0.2:8080")},
				{Protocol: unix.IPPROTO_UDP, HostPort: 53, HostIP: netip.MustParseAddr("192.0.2.7"), Target: netip.MustParseAddrPort("10.1.0.2:5353")},
				{Protocol: unix.IPPROTO_TCP, HostPort: 80, Target: netip.MustParseAddrPort("[fd00:1::2]:8080")},
				{Protocol: unix.IPPROTO_SCTP, HostPort: 99, HostIP: netip.MustParseAddr("2001:db8::7"), Target: netip.MustParseAddrPort("[fd00:1::2]:9")},
			}},
		},
		"bbb/eth0":     {Sources: []netip.Prefix{netip.MustParsePrefix("10.1.0.3/16")}},
		"user-net-ccc": {Bridge: Bridge{Link: "br1"}},
		"user-net-ddd": {Bridge: Bridge{Link: "br2", Internal: true}},
	}, "nodeagent-test"
}

func fill(t *testing.T, table *Table, all map[string]Rules) {
	t.Helper()
	for owner, rules := range all {
		if err := table.Masquerade(owner, rules.Sources); err != nil {
			t.Fatal(err)
		}
		if err := table.Isolate(owner, rules.Bridge); err != nil {
			t.Fatal(err)
		}
		if len(rules.Ports) == 0 {
			continue
		}
		if err := table.Publish(owner, rules.Published); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTableIsFoundAgain(t *testing.T) {
	testenv.Root(t)
	all, name := sample()
	table, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	t.Cleanup(func() {
		if err := table.Destroy(); err != nil {
			t.Error(err)
		}
		if rest := ruleset(t); rest != "" {
			t.Errorf("left behind:\n%s", rest)
		}
	})
	fill(t, table, all)
	t.Log(ruleset(t))
	again, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Close)
	if !again.installed {
		t.Fatal("table was not understood")
	}
	for owner, rules := range all {
		got := again.Owned(owner)
		if len(got.Sources) != len(rules.Sources) || len(got.Ports) != len(rules.Ports) || got.Link != rules.Link || len(got.Targets) != len(rules.Targets) || got.Bridge != rules.Bridge {
			t.Errorf("owner %s: got %+v, want %+v", owner, got, rules)
		}
	}
	if !reflect.DeepEqual(again.refs, table.refs) || !reflect.DeepEqual(again.chains, table.chains) {
		t.Errorf("got %v %v, want %v %v", again.refs, again.chains, table.refs, table.chains)
	}
	taken := []Port{{Protocol: unix.IPPROTO_TCP, HostPort: 80, HostIP: netip.MustParseAddr("127.0.0.1"), Target: netip.MustParseAddrPort("10.1.0.3:80")}}
	if err := again.Publish("bbb/eth0", Published{Ports: taken}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a taken port: got %v", err)
	}
	for owner := range all {
		if err := again.Unpublish(owner); err != nil {
			t.Error(err)
		}
		if err := again.Unmasquerade(owner); err != nil {
			t.Error(err)
		}
		if err := again.Isolate(owner, Bridge{}); err != nil {
			t.Error(err)
		}
	}
	if len(again.refs) != 0 || len(again.Owners()) != 0 {
		t.Errorf("left: %v %v", again.refs, again.Owners())
	}
}

// TestTableHealsItself: somebody flushes all rules of the machine.
func TestTableHealsItself(t *testing.T) {
	testenv.Root(t)
	all, name := sample()
	table, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	t.Cleanup(func() { table.Destroy() })
	fill(t, table, all)
	before := ruleset(t)
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	extra := netip.MustParsePrefix("10.1.0.9/16")
	if err := table.Masquerade("ccc/eth0", []netip.Prefix{extra}); err != nil {
		t.Fatal(err)
	}
	if err := table.Unmasquerade("ccc/eth0"); err != nil {
		t.Fatal(err)
	}
	if after := ruleset(t); len(after) != len(before) {
		t.Errorf("got\n%s\nwant\n%s", after, before)
	}
}

// TestManyPods: a table with the elements of very many pods is written in one
// transaction, and loses the chains of networks that are gone.
func TestManyPods(t *testing.T) {
	testenv.Root(t)
	table, err := Open("nodeagent-test-many")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	t.Cleanup(func() {
		if err := table.Destroy(); err != nil {
			t.Error(err)
		}
	})
	const pods = 5000
	for i := range pods {
		addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 16)
		rules := Rules{Sources: []netip.Prefix{addr}, Published: Published{Link: "br0", Targets: []netip.Prefix{addr}, Ports: []Port{
			{Protocol: unix.IPPROTO_TCP, HostPort: uint16(1000 + i), Target: netip.AddrPortFrom(addr.Addr(), 80)},
		}}}
		owner := fmt.Sprintf("%064d/eth0", i)
		table.remember(owner, rules, nil, elementsOf(owner, rules))
	}
	if err := table.Rewrite(); err != nil {
		t.Fatal(err)
	}
	if err := table.Masquerade("last/eth0", []netip.Prefix{netip.MustParsePrefix("10.10.0.2/16")}); err != nil {
		t.Fatal(err)
	}
	if err := table.Unmasquerade("last/eth0"); err != nil {
		t.Fatal(err)
	}
	if err := table.Prune(); err != nil {
		t.Fatal(err)
	}
	again, err := Open("nodeagent-test-many")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Close)
	if got := len(again.Owners()); got != pods {
		t.Errorf("%d owners of %d are found again", got, pods)
	}
	if !again.chains["masq-10.9.0.0/16"] || len(again.chains) != 2 {
		t.Errorf("chains %v", again.chains)
	}
	if err := again.Masquerade("first/eth0", []netip.Prefix{netip.MustParsePrefix("10.10.0.3/16")}); err != nil {
		t.Fatal(err)
	}
	if err := again.Unmasquerade("first/eth0"); err != nil {
		t.Fatal(err)
	}
}
