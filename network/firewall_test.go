package network

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// filters is what iptables and ip6tables show of their filters.
func filters(t testing.TB) []string {
	t.Helper()
	var lines []string
	for _, name := range []string{"iptables", "ip6tables"} {
		out, err := exec.Command(testenv.Program(t, name, "iptables"), "-S").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		for line := range strings.Lines(string(out)) {
			lines = append(lines, name+" "+strings.TrimSpace(line))
		}
	}
	slices.Sort(lines)
	return lines
}

// dropForwarded is iptables' policy for what is forwarded, as docker sets it.
func dropForwarded(t testing.TB) {
	t.Helper()
	for _, name := range []string{"iptables", "ip6tables"} {
		if out, err := exec.Command(testenv.Program(t, name, "iptables"), "-P", "FORWARD", "DROP").CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
}

// TestFirewall: pods talk to the world through a policy that drops what is
// forwarded, by the same rules in process and executed, and the rules go with
// them.
func TestFirewall(t *testing.T) {
	seen := map[bool][]string{}
	ways(t, func(t *testing.T, cfg Config) {
		dropForwarded(t)
		out := place{"outside", outside}
		out.serve(t, 99)
		m := newManager(t, cfg)
		a, b := newPod(t), newPod(t)
		mustAdd(t, m, a)
		mustAdd(t, m, b)
		pod := openPlace(t, "pod", a.NetNS)
		pod.mustAsk(t, "tcp", "198.51.100.1:99")
		pod.mustAsk(t, "tcp", "[2001:db8:7::1]:99")
		seen[cfg.BuiltinPlugins] = filters(t)
		if err := m.Check(context.Background(), a); err != nil {
			t.Error(err)
		}
		mustDel(t, m, a)
		if text := strings.Join(filters(t), "\n"); strings.Contains(text, "10.77.0.2") || !strings.Contains(text, "10.77.0.3") {
			t.Errorf("after one pod went:\n%s", text)
		}
		mustDel(t, m, b)
	})
	if diff := cmp.Diff(seen[false], seen[true]); diff != "" {
		t.Errorf("executed (-) and built in (+) differ:\n%s", diff)
	}
}

// TestFirewallOtherWayRound: the plugin checks and deletes the rules that were
// written in process, without any record of ours.
func TestFirewallOtherWayRound(t *testing.T) {
	rooted(t)
	bin := testenv.CNIPlugins(t)
	cfg := testConfig(t)
	writeConf(t, cfg, "10-test.conflist", conflist(filepath.Join(t.TempDir(), "addresses")))
	t.Cleanup(func() { tidy(t) })
	m := newManager(t, cfg)
	a := newPod(t)
	mustAdd(t, m, a)
	for _, command := range []string{"CHECK", "DEL"} {
		cmd := exec.Command(filepath.Join(bin, "firewall"))
		cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + a.PodID, "CNI_NETNS=" + a.NetNS, "CNI_IFNAME=eth0", "CNI_PATH=" + bin, "PATH=" + os.Getenv("PATH")}
		cmd.Stdin = strings.NewReader(`{"cniVersion": "1.0.0", "name": "cni-test", "type": "firewall", "prevResult": {"cniVersion": "1.0.0",
			"ips": [{"address": "10.77.0.2/24"}, {"address": "fd77::2/64"}]}}`)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	if text := strings.Join(filters(t), "\n"); strings.Contains(text, "10.77.0.2") || strings.Contains(text, "fd77::2") {
		t.Errorf("left:\n%s", text)
	}
	mustDel(t, m, a)
}

// TestFirewallIsSwept: rules of pods that nobody knows are taken away, those
// of others stay, and those that somebody flushed come back.
func TestFirewallIsSwept(t *testing.T) {
	rooted(t)
	cfg := testConfig(t)
	writeConf(t, cfg, "10-test.conflist", conflist(filepath.Join(t.TempDir(), "addresses")))
	t.Cleanup(func() { tidy(t) })
	m := newManager(t, cfg)
	a, stale := newPod(t), newPod(t)
	mustAdd(t, m, a)
	mustAdd(t, m, stale)
	theirs := []string{"-A", "CNI-FORWARD", "-s", "192.0.2.1/32", "-j", "ACCEPT"}
	if out, err := exec.Command("iptables", theirs...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// As if its records had been lost.
	if err := m.removeIntent(stale.PodID); err != nil {
		t.Fatal(err)
	}
	if err := m.GC(context.Background(), []Attachment{a}); err != nil {
		t.Fatal(err)
	}
	kept := filters(t)
	text := strings.Join(kept, "\n")
	for want, there := range map[string]bool{"-s 10.77.0.2/32": true, "-s 192.0.2.1/32": true, "-s 10.77.0.3/32": false} {
		if strings.Contains(text, want) != there {
			t.Errorf("%s there: %v\n%s", want, !there, text)
		}
	}
	for _, name := range []string{"iptables", "ip6tables"} {
		if out, err := exec.Command(name, "-F").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := m.GC(context.Background(), []Attachment{a}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slices.DeleteFunc(kept, func(line string) bool { return strings.Contains(line, "192.0.2.1") }), filters(t)); diff != "" {
		t.Errorf("after a flush (-before +after):\n%s", diff)
	}
	b := newPod(t)
	mustAdd(t, m, b)
	mustDel(t, m, b)
	mustDel(t, m, a)
	if err := os.Remove(filepath.Join(cfg.RootDir, "intents", stale.PodID+intentSuffix)); err == nil {
		t.Error("the record came back")
	}
}
