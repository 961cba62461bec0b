package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"

	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/network/builtin"
)

// script puts a plugin into the first folder of plugins.
func script(t testing.TB, cfg Config, name, body string) {
	t.Helper()
	if err := os.MkdirAll(cfg.BinDirs[0], 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.BinDirs[0], name), []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
}

// chained is a configuration whose last plugin is the script fail.
func chained(data string) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "cni-test", "plugins": [
		{"type": "bridge", "bridge": "cnitest0", "isGateway": true, "ipMasq": true,
		 "ipam": {"type": "host-local", "dataDir": %q, "subnet": "10.77.0.0/24"}},
		{"type": "firewall"}, {"type": "fail"}]}`, data)
}

// TestBadConfigurations: a clear error that names file and reason, in Status
// and Add, and nothing left.
func TestBadConfigurations(t *testing.T) {
	bridge := func(rest string) string {
		return `{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge", "bridge": "cnitest0", ` + rest + `}]}`
	}
	for name, each := range map[string]struct{ conf, want string }{
		"half a file":      {`{"cniVersion": "1.0.0", "name": "x", "plugins": [`, "unexpected end"},
		"no name":          {`{"cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}`, `name ""`},
		"path as name":     {`{"cniVersion": "1.0.0", "name": "../x", "plugins": [{"type": "bridge"}]}`, `name "../x"`},
		"no plugins":       {`{"cniVersion": "1.0.0", "name": "x", "plugins": []}`, "no plugins"},
		"future version":   {`{"cniVersion": "9.0.0", "name": "x", "plugins": [{"type": "bridge"}]}`, `"9.0.0"`},
		"unknown plugin":   {`{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "nosuch"}]}`, "plugin nosuch is not in"},
		"not built in":     {bridge(`"macspoofchk": true, "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}`), "macspoofchk is not built in"},
		"contradiction":    {bridge(`"hairpinMode": true, "promiscMode": true, "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}`), "exclude each other"},
		"no such VLAN":     {bridge(`"vlan": 4095, "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}`), "vlan 4095"},
		"half a trunk":     {bridge(`"vlanTrunk": [{"minID": 3}], "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}`), "only good together"},
		"bad MAC":          {bridge(`"args": {"cni": {"mac": "02:00"}}, "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}`), "hardware address"},
		"unknown ipam":     {bridge(`"ipam": {"type": "nosuch"}`), "plugin nosuch is not in"},
		"malformed subnet": {bridge(`"ipam": {"type": "host-local", "subnet": "10.77.0.0/99"}`), "invalid CIDR"},
		"host bits":        {bridge(`"ipam": {"type": "host-local", "subnet": "10.77.0.9/24"}`), "host bits"},
		"overlap":          {bridge(`"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "10.77.0.0/16"}]]}`), "overlaps"},
		"wrong kind":       {bridge(`"mtu": "big", "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}`), "mtu"},
	} {
		t.Run(name, func(t *testing.T) {
			rooted(t)
			cfg := testConfig(t)
			writeConf(t, cfg, "10-bad.conflist", each.conf)
			m := newManager(t, cfg)
			for what, err := range map[string]error{"Status": m.Status(context.Background()), "Add": addError(m, newPod(t))} {
				if !errdefs.IsUnavailable(err) || !strings.Contains(fmt.Sprint(err), each.want) {
					t.Errorf("%s: got %v, want one with %q", what, err, each.want)
				}
			}
		})
	}
}

func addError(m *Manager, a Attachment) error {
	_, err := m.Add(context.Background(), a)
	return err
}

// TestCVE202120206: a plugin's type is no path.
func TestCVE202120206(t *testing.T) {
	rooted(t)
	for _, conf := range []string{
		`{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "../../../../bin/true"}]}`,
		`{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "/bin/true"}]}`,
		`{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge", "ipam": {"type": "../../bin/true"}}]}`,
		`{"cniVersion": "1.0.0", "name": "x", "type": ".."}`,
	} {
		cfg := testConfig(t)
		writeConf(t, cfg, "10-bad.conf", conf)
		m := newManager(t, cfg)
		if err := m.Status(context.Background()); err == nil || !strings.Contains(err.Error(), "not a plain file name") {
			t.Errorf("%s: got %v", conf, err)
		}
	}
}

// TestFirstGoodFile: bad files are reported, the first good one is used, unless
// a bad one before it may be being written, and changes are noticed.
func TestFirstGoodFile(t *testing.T) {
	rooted(t)
	cfg := testConfig(t)
	cfg.NoDefaultNetwork = true
	m := newManager(t, cfg)
	ctx := context.Background()
	if err := m.Status(ctx); !errdefs.IsUnavailable(err) {
		t.Errorf("an empty folder: got %v", err)
	}
	named := func(name string) string {
		return `{"cniVersion": "0.4.0", "name": "` + name + `", "type": "bridge", "ipam": {"type": "host-local", "subnet": "10.77.0.0/24"}}`
	}
	for _, step := range []struct {
		do       func()
		want     string
		problems int
	}{
		{func() { writeConf(t, cfg, "20.conf", named("b")) }, "b", 0},
		{func() { writeConf(t, cfg, "30.json", named("a")[:30]) }, "b", 1},
		{func() {
			os.Remove(filepath.Join(cfg.ConfDir, "30.json"))
			writeConf(t, cfg, "10.json", named("a")[:30])
		}, "", 1},
		{func() {
			testenv.Eventually(t, 2*settled, "a bad file settles", func() error {
				_, err := m.current("")
				return err
			})
		}, "b", 1},
		{func() { writeConf(t, cfg, "10.json", named("a")) }, "a", 0},
		{func() { writeConf(t, cfg, "05.txt", named("c")) }, "a", 0},
		{func() { os.Rename(filepath.Join(cfg.ConfDir, "20.conf"), filepath.Join(cfg.ConfDir, "00.conf")) }, "b", 0},
		{func() { os.Remove(filepath.Join(cfg.ConfDir, "00.conf")) }, "a", 0},
		{func() { os.Remove(filepath.Join(cfg.ConfDir, "10.json")) }, "", 0},
	} {
		step.do()
		info := m.Info()
		if info.Network != step.want || len(info.Problems) != step.problems {
			t.Errorf("got %+v, want network %q and %d problems", info, step.want, step.problems)
		}
	}
}

// TestPluginFileChanges: a change inside of a file of a plugin is noticed, not
// only one of its folder.
func TestPluginFileChanges(t *testing.T) {
	dir := t.TempDir()
	plugin := filepath.Join(dir, "x", "10.conf")
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "x.conflist"), []byte("{}"), 0o600), os.Mkdir(filepath.Dir(plugin), 0o700), os.WriteFile(plugin, []byte("1"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	stamp := func() string {
		_, stamp, err := listConfigs(dir)
		if err != nil {
			t.Fatal(err)
		}
		return stamp
	}
	testenv.Eventually(t, 2*settled, "the files' times tell", func() error {
		if stamp() == "" {
			return errors.New("too young")
		}
		return nil
	})
	if err := os.WriteFile(plugin, []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if stamp() != "" {
		t.Error("the change is not noticed")
	}
}

// TestFailingAddLeavesNothing: the last plugin of the chain fails.
func TestFailingAddLeavesNothing(t *testing.T) {
	rooted(t)
	t.Cleanup(func() { tidy(t) })
	cfg := testConfig(t)
	data := t.TempDir()
	log := filepath.Join(t.TempDir(), "log")
	script(t, cfg, "fail", `echo "$CNI_COMMAND" >> `+log+`
[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion": "1.0.0", "code": 11, "msg": "come back later"}'; exit 1`)
	writeConf(t, cfg, "10-test.conflist", chained(data))
	m := newManager(t, cfg)
	a := newPod(t)
	err := addError(m, a)
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "come back later") {
		t.Errorf("got %v", err)
	}
	calls, _ := os.ReadFile(log)
	if string(calls) != "ADD\nDEL\n" {
		t.Errorf("calls: %q", calls)
	}
	checkNothing(t, m, data)
}

// checkNothing looks for intents, addresses and links of pods.
func checkNothing(t *testing.T, m *Manager, data string) {
	t.Helper()
	if ids, err := m.listIntents(); err != nil || len(ids) > 0 {
		t.Errorf("intents left: %v %v", ids, err)
	}
	if owners := m.table.Owners(); len(owners) > 0 {
		t.Errorf("rules left: %v", owners)
	}
	if rules := nft(t, "list", "ruleset"); strings.Contains(rules, "10.77.0.2") {
		t.Errorf("rules left: %s", rules)
	}
	found, _ := filepath.Glob(filepath.Join(data, "*", "*.*.*.*"))
	if len(found) > 0 {
		t.Errorf("addresses left: %v", found)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if link.Type() == "veth" && strings.HasPrefix(link.Attrs().Name, "veth") || link.Type() == "ifb" {
			t.Errorf("link left: %s", link.Attrs().Name)
		}
	}
}

// TestDelFailsOnce: when taking back fails too, it is recorded, and the next
// Del does it, or the next agent's GC.
func TestDelFailsOnce(t *testing.T) {
	rooted(t)
	t.Cleanup(func() { tidy(t) })
	cfg := testConfig(t)
	data := t.TempDir()
	good := filepath.Join(t.TempDir(), "good")
	script(t, cfg, "fail", `[ -e `+good+` ] && { [ "$CNI_COMMAND" = DEL ] || cat; exit 0; }; echo rubbish; exit 1`)
	writeConf(t, cfg, "10-test.conflist", chained(data))
	m := newManager(t, cfg)
	first, second := newPod(t), newPod(t)
	for _, a := range []Attachment{first, second} {
		if err := addError(m, a); err == nil || strings.Count(err.Error(), "rubbish") != 2 {
			t.Errorf("got %v, want both failures", err)
		}
	}
	if err := m.Del(context.Background(), first); err == nil {
		t.Error("Del of what cannot be deleted succeeded")
	}
	os.WriteFile(good, nil, 0o600)
	// The folder has another configuration by now, which Del does not use.
	writeConf(t, cfg, "10-test.conflist", `{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "nosuch"}]}`)
	mustDel(t, m, first)
	next, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Close)
	if err := next.GC(context.Background(), nil); err != nil {
		t.Error(err)
	}
	checkNothing(t, next, data)
}

// TestHangingPlugin: it is killed with all it started, and the pod fails.
func TestHangingPlugin(t *testing.T) {
	rooted(t)
	t.Cleanup(func() { tidy(t) })
	cfg := testConfig(t)
	cfg.PluginTimeout = 300 * time.Millisecond
	data := t.TempDir()
	script(t, cfg, "fail", `[ "$CNI_COMMAND" = ADD ] || exit 0
sleep 1000 & sleep 1000`)
	writeConf(t, cfg, "10-test.conflist", chained(data))
	m := newManager(t, cfg)
	start := time.Now()
	if err := addError(m, newPod(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > drainTime {
		t.Errorf("took %v: a child of the plugin lived on", took)
	}
	checkNothing(t, m, data)
}

// TestCancelledAdd: the caller gives up; what was done is undone all the same.
func TestCancelledAdd(t *testing.T) {
	rooted(t)
	t.Cleanup(func() { tidy(t) })
	cfg := testConfig(t)
	data := t.TempDir()
	script(t, cfg, "fail", `[ "$CNI_COMMAND" = ADD ] || exit 0
sleep 1000`)
	writeConf(t, cfg, "10-test.conflist", chained(data))
	m := newManager(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.Add(ctx, newPod(t)); err == nil {
		t.Error("Add succeeded")
	}
	checkNothing(t, m, data)
}

// TestUnkillablePlugin: one that the kernel does not kill, as one that waits for a
// disk, does not hold up its pod for ever.
func TestUnkillablePlugin(t *testing.T) {
	rooted(t)
	freezer := "/sys/fs/cgroup/freezer/nodeagent-test-plugin"
	if err := os.Mkdir(freezer, 0o755); err != nil {
		t.Skip("no freezer whose processes cannot be killed: ", err)
	}
	t.Cleanup(func() { tidy(t) })
	cfg := testConfig(t)
	cfg.PluginTimeout = 200 * time.Millisecond
	data := t.TempDir()
	script(t, cfg, "fail", `[ "$CNI_COMMAND" = ADD ] || exit 0
echo $$ > `+freezer+`/cgroup.procs
echo FROZEN > `+freezer+`/freezer.state
exec sleep 1000`)
	writeConf(t, cfg, "10-test.conflist", chained(data))
	m := newManager(t, cfg)
	if err := addError(m, newPod(t)); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cannot be killed") {
		t.Errorf("got %v", err)
	}
	if len(m.slots) != 1 {
		t.Errorf("%d slots are taken", len(m.slots))
	}
	if err := os.WriteFile(freezer+"/freezer.state", []byte("THAWED"), 0o644); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 10*time.Second, "the plugin ends", func() error {
		if len(m.slots) != 0 {
			return errors.New("its slot is taken")
		}
		return os.Remove(freezer)
	})
	checkNothing(t, m, data)
}

// TestHangingCleanup: a plugin that hangs over what a pod has left keeps no other
// from its rules.
func TestHangingCleanup(t *testing.T) {
	rooted(t)
	t.Cleanup(func() { tidy(t) })
	cfg := testConfig(t)
	data, hang := t.TempDir(), filepath.Join(t.TempDir(), "hang")
	script(t, cfg, "fail", `[ "$CNI_COMMAND" != ADD ] || exit 1
[ ! -e `+hang+` ] || sleep 1000`)
	kept, left := newPod(t), newPod(t)
	writeConf(t, cfg, "10-test.conflist", strings.Replace(chained(data), `{"type": "fail"}`, `{"type": "portmap"}`, 1))
	mustAdd(t, newManager(t, cfg), kept)
	writeConf(t, cfg, "10-test.conflist", chained(data))
	if err := os.WriteFile(hang, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	quick := cfg
	quick.PluginTimeout = 100 * time.Millisecond
	if err := addError(newManager(t, quick), left); err == nil {
		t.Error("Add succeeded")
	}
	nft(t, "flush", "ruleset")
	next := newManager(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := next.GC(ctx, []Attachment{kept}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), left.PodID) {
		t.Errorf("got %v", err)
	}
	if len(next.table.Owned(builtin.Owner(kept.PodID, InterfaceName)).Sources) == 0 {
		t.Error("the other pod is not masqueraded")
	}
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	mustDel(t, next, left)
	mustDel(t, next, kept)
	checkNothing(t, next, data)
}

// TestTooMuchOutput and more than one junk answer are errors.
func TestTooMuchOutput(t *testing.T) {
	rooted(t)
	t.Cleanup(func() { tidy(t) })
	cfg := testConfig(t)
	data := t.TempDir()
	script(t, cfg, "fail", `[ "$CNI_COMMAND" = ADD ] || exit 0
head -c 3000000 /dev/zero`)
	writeConf(t, cfg, "10-test.conflist", chained(data))
	m := newManager(t, cfg)
	if err := addError(m, newPod(t)); err == nil || !strings.Contains(err.Error(), "printed more than") {
		t.Errorf("got %v", err)
	}
	checkNothing(t, m, data)
}

// TestNullInResult: a list with a null in it is an error of the plugin's, and
// not the agent's end.
func TestNullInResult(t *testing.T) {
	rooted(t)
	t.Cleanup(func() { tidy(t) })
	cfg := testConfig(t)
	data := t.TempDir()
	script(t, cfg, "fail", `[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion": "1.0.0", "interfaces": [null], "ips": [{"address": "10.0.0.1/24"}]}'`)
	writeConf(t, cfg, "10-test.conflist", chained(data))
	m := newManager(t, cfg)
	if err := addError(m, newPod(t)); err == nil || !strings.Contains(err.Error(), "interfaces[0] is null") {
		t.Errorf("got %v", err)
	}
	checkNothing(t, m, data)
}

// Addresses of a pod's further interfaces are not the pod's.
func TestAddressesOfOneInterface(t *testing.T) {
	printed := `{"cniVersion": "1.0.0", "interfaces": [{"name": "br"}, {"name": "net1", "sandbox": "/x"}, {"name": %q, "sandbox": "/x"}],
		"ips": [{"address": "10.0.0.1/24", "interface": 0}, {"address": "10.0.1.1/24", "interface": 1}, {"address": "10.0.2.1/24", "interface": 2}]}`
	for name, want := range map[string]string{"eth0": "[10.0.2.1/24]", "other": "[10.0.1.1/24 10.0.2.1/24]"} {
		raw, err := create.CreateFromBytes(fmt.Appendf(nil, printed, name))
		if err != nil {
			t.Fatal(err)
		}
		result, err := resultOf(raw, "x", InterfaceName)
		if err != nil || fmt.Sprint(result.Addresses) != want {
			t.Errorf("%s: got %v %v", name, result, err)
		}
	}
}

// A plugin's words are cut, and are text.
func TestLongErrorOfPlugin(t *testing.T) {
	exit := exec.Command("false").Run()
	printed, err := json.Marshal(map[string]any{"code": 11, "msg": strings.Repeat("é", 1<<18), "details": "x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, stdout := range [][]byte{printed, printed[1:]} {
		if err := pluginError("/p", exit, stdout, nil); len(err.Error()) > 4<<10 || !utf8.ValidString(err.Error()) {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
}

// FuzzResult: what is not refused can be read, and told on in every version.
func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"cniVersion": "1.1.0", "interfaces": [{"name": "a", "sandbox": "/x"}], "ips": [{"address": "10.0.0.1/24", "interface": 0}], "routes": [{"dst": "0.0.0.0/0"}]}`))
	f.Add([]byte(`{"cniVersion": "0.4.0", "interfaces": [null], "ips": [{"version": "6", "address": "fd00::1/64", "interface": -1}]}`))
	f.Add([]byte(`{"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.1/24", "routes": [null]}, "ip6": null}`))
	f.Add([]byte(`{"cniVersion": "1.0.0", "ips": [{"interface": 5}], "routes": [{}], "dns": null}`))
	f.Fuzz(func(t *testing.T, printed []byte) {
		if checkResult(printed) != nil {
			return
		}
		raw, err := create.CreateFromBytes(printed)
		if err != nil {
			return
		}
		_, _ = resultOf(raw, "x", InterfaceName)
		for _, version := range version.All.SupportedVersions() {
			_, _ = raw.GetAsVersion(version)
		}
	})
}

// TestExhaustedRange: the pod that gets no address gets nothing.
func TestExhaustedRange(t *testing.T) {
	rooted(t)
	t.Cleanup(func() { tidy(t) })
	cfg := testConfig(t)
	data := t.TempDir()
	writeConf(t, cfg, "10-test.conflist", fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "cni-test", "plugins": [{"type": "bridge", "bridge": "cnitest0",
		"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "fd77::/64"}], [{"subnet": "10.77.0.0/30"}]]}}]}`, data))
	m := newManager(t, cfg)
	first, second := newPod(t), newPod(t)
	mustAdd(t, m, first)
	if err := addError(m, second); !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v", err)
	}
	mustDel(t, m, first)
	checkNothing(t, m, data)
	mustAdd(t, m, second)
	mustDel(t, m, second)
}

// TestTakenHostPort: the error names port and pod, and the pod fails whole.
func TestTakenHostPort(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	first, second := newPod(t), newPod(t)
	first.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
	second.Ports = []PortMapping{{Protocol: TCP, HostPort: 9090, ContainerPort: 90},
		{Protocol: TCP, HostPort: 8080, ContainerPort: 80, HostIP: netip.MustParseAddr("198.51.100.7")}}
	mustAdd(t, m, first)
	err := addError(m, second)
	if !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), "tcp port 8080") || !strings.Contains(err.Error(), first.PodID) {
		t.Errorf("got %v", err)
	}
	if owners := m.table.Owners(); len(owners) != 1 {
		t.Errorf("rules of %v", owners)
	}
	second.Ports[1].Protocol = UDP
	mustAdd(t, m, second)
	mustDel(t, m, first)
	mustDel(t, m, second)
}

// TestAddTwice: a pod that is wired stays as it is.
func TestAddTwice(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	a := newPod(t)
	mustAdd(t, m, a)
	if err := addError(m, a); !errdefs.IsAlreadyExists(err) {
		t.Errorf("got %v", err)
	}
	if err := m.Check(context.Background(), a); err != nil {
		t.Error(err)
	}
	mustDel(t, m, a)
	mustDel(t, m, a)
}

// TestNamespaceGone: as after a reboot, and as when only the pin is gone.
func TestNamespaceGone(t *testing.T) {
	ways(t, func(t *testing.T, cfg Config) {
		m := newManager(t, cfg)
		first, second := newPod(t), newPod(t)
		mustAdd(t, m, first)
		mustAdd(t, m, second)
		dropNetNS(t, first.NetNS)
		mustDel(t, m, first)
		dropNetNS(t, second.NetNS)
		if err := os.Remove(second.NetNS); err != nil {
			t.Fatal(err)
		}
		mustDel(t, m, second)
		mustDel(t, m, second)
	})
}

// TestNoNamespace: Add says what is missing.
func TestNoNamespace(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	a := newPod(t)
	dropNetNS(t, a.NetNS)
	if err := addError(m, a); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), a.NetNS) {
		t.Errorf("got %v", err)
	}
	checkNothing(t, m, m.cfg.StateDir)
}

// TestGC: what belongs to no kept pod is taken back, by another manager, with
// what a killed one left half-way.
func TestGC(t *testing.T) {
	rooted(t)
	cfg := testConfig(t)
	m := newManager(t, cfg)
	kept, stale, half := newPod(t), newPod(t), newPod(t)
	kept.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
	stale.Ports = []PortMapping{{Protocol: TCP, HostPort: 9090, ContainerPort: 80}}
	mustAdd(t, m, kept)
	mustAdd(t, m, stale)
	n, err := m.current("")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.writeIntent(newIntent(half, n)); err != nil {
		t.Fatal(err)
	}
	// An address without a pod, as of an intent that was lost.
	orphan := filepath.Join(cfg.StateDir, "ipam", DefaultNetwork, "10.88.99.99")
	if err := os.WriteFile(orphan, []byte("nobody\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	next, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Close)
	ctx := context.Background()
	if err := next.GC(ctx, []Attachment{kept}); err != nil {
		t.Fatal(err)
	}
	if err := next.Check(ctx, kept); err != nil {
		t.Error(err)
	}
	if owners := next.table.Owners(); len(owners) != 1 {
		t.Errorf("rules of %v", owners)
	}
	found, _ := filepath.Glob(filepath.Join(cfg.StateDir, "ipam", DefaultNetwork, "10.*"))
	if len(found) != 1 {
		t.Errorf("addresses: %v", found)
	}
	if err := next.Cleanup(ctx); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("Cleanup with a pod: %v", err)
	}
	mustDel(t, next, kept)
}

// TestBrokenSteps: each step of Add fails once; the same call then succeeds.
func TestBrokenSteps(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	for _, step := range []string{"intent", "loopback", "plugins"} {
		for _, side := range []string{"before", "after"} {
			disable, err := failpoint.Enable("network.add." + step + "." + side + "=error:1")
			if err != nil {
				t.Fatal(err)
			}
			a := newPod(t)
			if err := addError(m, a); !errors.Is(err, failpoint.ErrInjected) {
				t.Errorf("%s %s: got %v", side, step, err)
			}
			checkNothing(t, m, filepath.Join(m.cfg.StateDir, "ipam"))
			mustAdd(t, m, a)
			mustDel(t, m, a)
			disable()
		}
	}
}

// TestManyAtOnce: fifty pods get fifty addresses.
func TestManyAtOnce(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	const count = 50
	pods := make([]Attachment, count)
	for i := range pods {
		pods[i] = newPod(t)
		pods[i].Ports = []PortMapping{{Protocol: TCP, HostPort: uint16(10000 + i), ContainerPort: 80}}
	}
	var mu sync.Mutex
	seen := map[netip.Prefix]bool{}
	var wg sync.WaitGroup
	for _, a := range pods {
		wg.Go(func() {
			result, err := m.Add(context.Background(), a)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, addr := range result.Addresses {
				if seen[addr] {
					t.Errorf("%s twice", addr)
				}
				seen[addr] = true
			}
		})
	}
	wg.Wait()
	if len(seen) != 2*count {
		t.Errorf("%d addresses", len(seen))
	}
	for _, a := range pods {
		wg.Go(func() { mustDel(t, m, a) })
	}
	wg.Wait()
	checkNothing(t, m, filepath.Join(m.cfg.StateDir, "ipam"))
}
