package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/supervisor"
)

// node is what the parts of an agent say.
type node struct {
	err     error
	info    network.Info
	orphans []sandbox.Orphan
	removed []string
}

func (n *node) Status(context.Context) error { return n.err }
func (n *node) Info() network.Info           { return n.info }
func (n *node) Orphans(context.Context) ([]sandbox.Orphan, error) {
	return n.orphans, nil
}

func (n *node) RemoveOrphan(_ context.Context, o sandbox.Orphan) error {
	n.removed = append(n.removed, o.ID)
	return nil
}

type superviser struct{ err error }

func (s superviser) Info(context.Context) (supervisor.Info, error) {
	return supervisor.Info{PID: 5, Version: "1"}, s.err
}

// host makes a machine of files.
func host(t *testing.T, files map[string]string) Host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(root, "s")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := &node{}
	return Host{
		Root: root, AgentRoot: "/root", AgentState: "/state", Socket: socket, ConfDir: "/etc/cni/net.d", CgroupDriver: "cgroupfs",
		Network: n, Orphans: n, Supervisor: superviser{},
		Statfs: func(path string, fs *unix.Statfs_t) error {
			*fs = unix.Statfs_t{Bsize: 1 << 20, Blocks: 1000, Bavail: 500, Files: 1000, Ffree: 500}
			switch {
			case path == "/state":
				fs.Type = unix.TMPFS_MAGIC
			case strings.HasSuffix(path, "/cgroup"):
				fs.Type = unix.CGROUP2_SUPER_MAGIC
			}
			return nil
		},
		LookPath: func(name string) (string, error) { return "/sbin/" + name, nil },
	}
}

func good() map[string]string {
	files := map[string]string{
		"/proc/sys/kernel/osrelease": "6.18.1-x", "/proc/filesystems": "nodev\ttmpfs\nnodev\tmqueue\nnodev\toverlay\n\terofs",
		"/proc/sys/user/max_user_namespaces": "100", "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids",
		"/proc/sys/net/ipv4/ip_forward": "1", "/proc/sys/net/ipv6/conf/all/forwarding": "1", "/proc/sys/net/bridge/bridge-nf-call-iptables": "1",
		"/proc/sys/kernel/pid_max": "4194304", "/proc/sys/fs/inotify/max_user_instances": "8192", "/proc/sys/fs/inotify/max_user_watches": "100000",
		"/proc/sys/kernel/seccomp/actions_avail": "kill errno", "/proc/swaps": "Filename Type",
	}
	for _, kind := range []string{"net", "ipc", "uts", "pid", "mnt"} {
		files["/proc/self/ns/"+kind] = ""
	}
	return files
}

// worst gives the worst level that each check told, and all texts, by its name.
func worst(findings []Finding) (levels map[string]Level, texts map[string]string) {
	levels, texts = map[string]Level{}, map[string]string{}
	for _, f := range findings {
		levels[f.Check] = max(levels[f.Check], f.Level)
		texts[f.Check] += f.Text + "; " + f.Remedy + "\n"
	}
	return levels, texts
}

// ofThisMachine are the checks that ask the machine of the test itself.
var ofThisMachine = map[string]bool{"clock": true, "limits": true, "socket": true}

func TestAllIsWell(t *testing.T) {
	h := host(t, good())
	levels, texts := worst(h.Examine(t.Context()))
	for name, level := range levels {
		if level > OK && !ofThisMachine[name] {
			t.Errorf("%s: %s", name, texts[name])
		}
	}
	if len(levels) != len(h.checks()) {
		t.Errorf("%d of %d checks say something", len(levels), len(h.checks()))
	}
}

func TestWhatIsWrongIsToldWithARemedy(t *testing.T) {
	for _, test := range []struct {
		check, file, text string
		level             Level
		want              string
	}{
		{"kernel", "/proc/sys/kernel/osrelease", "5.4.0", Problem, "5.10"},
		{"kernel", "/proc/sys/kernel/osrelease", "5.10.0", Note, "mount_setattr"},
		{"kernel features", "/proc/filesystems", "nodev\ttmpfs", Problem, "modprobe overlay"},
		{"kernel features", "/proc/sys/user/max_user_namespaces", "0", Note, "user namespaces"},
		{"cgroups", "/sys/fs/cgroup/cgroup.controllers", "cpu cpuset", Problem, "memory, pids"},
		{"ip forwarding", "/proc/sys/net/ipv4/ip_forward", "0", Warning, "sysctl -w net.ipv4.ip_forward=1"},
		{"bridged traffic", "/proc/sys/net/bridge/bridge-nf-call-iptables", "0", Note, "sysctl -w net.bridge"},
		{"limits", "/proc/sys/kernel/pid_max", "1000", Warning, "kernel.pid_max=4194304"},
		{"security modules", "/proc/sys/kernel/seccomp/actions_avail", "", Warning, "CONFIG_SECCOMP_FILTER"},
		{"swap", "/proc/swaps", "Filename\n/dev/sda2 partition", Note, "swapoff"},
	} {
		files := good()
		files[test.file] = test.text
		levels, texts := worst(host(t, files).Examine(t.Context()))
		if levels[test.check] < test.level || !strings.Contains(texts[test.check], test.want) {
			t.Errorf("%s with %s = %q: level %d: %s", test.check, test.file, test.text, levels[test.check], texts[test.check])
		}
	}
}

func TestPartsOfTheAgentAreAsked(t *testing.T) {
	h := host(t, good())
	n := &node{err: errors.New("no plugin"), info: network.Info{Problems: []string{"/etc/cni/net.d/x: bad"}}, orphans: []sandbox.Orphan{{Kind: sandbox.OrphanSnapshot, ID: "abc", Path: "abc"}}}
	h.Network, h.Orphans, h.Supervisor = n, n, superviser{errors.New("gone")}
	if err := os.Chmod(h.Socket, 0o666); err != nil {
		t.Fatal(err)
	}
	h.Statfs = func(_ string, fs *unix.Statfs_t) error {
		*fs = unix.Statfs_t{Bsize: 1, Blocks: 1000, Bavail: 10, Files: 1000, Ffree: 100, Type: unix.CGROUP2_SUPER_MAGIC}
		return nil
	}
	findings := h.Examine(t.Context())
	levels, texts := worst(findings)
	for check, level := range map[string]Level{"network": Problem, "supervisor": Problem, "socket": Problem, "disk": Problem, "leftovers": Warning, "state folder": Note} {
		if levels[check] != level {
			t.Errorf("%s: level %d: %s", check, levels[check], texts[check])
		}
	}
	for _, f := range findings {
		if f.Fix != nil && f.Level >= Warning && (f.Check == "socket" || f.Check == "leftovers") {
			if err := f.Fix(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if info, err := os.Stat(h.Socket); err != nil || info.Mode().Perm() != 0o600 || fmt.Sprint(n.removed) != "[abc]" {
		t.Errorf("after the mending: %v %v, removed %v", info.Mode(), err, n.removed)
	}
}

func TestFixWritesTheSysctl(t *testing.T) {
	files := good()
	files["/proc/sys/net/ipv4/ip_forward"] = "0"
	h := host(t, files)
	for _, f := range h.Examine(t.Context()) {
		if f.Check == "ip forwarding" && f.Fix != nil {
			if err := f.Fix(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if n, _ := h.number("/proc/sys/net/ipv4/ip_forward"); n != 1 {
		t.Errorf("it is %d", n)
	}
}

// A disk that nothing but logs is on is looked at too, be it ever so small.
func TestLogDisk(t *testing.T) {
	h := host(t, good())
	statfs := h.Statfs
	h.Logs = func() []string { return []string{"/pods/a", "/pods/b"} }
	h.Statfs = func(path string, fs *unix.Statfs_t) error {
		if !strings.HasPrefix(path, "/pods") {
			return statfs(path, fs)
		}
		*fs = unix.Statfs_t{Bsize: 4096, Blocks: 16, Fsid: unix.Fsid{Val: [2]int32{1, 2}}}
		return nil
	}
	levels, texts := worst(h.Examine(t.Context()))
	if levels["disk"] != Problem || !strings.Contains(texts["disk"], "/pods/a has only 0B free of 64KiB: what containers write to logs there is lost") || strings.Contains(texts["disk"], "/pods/b") {
		t.Errorf("%s", texts["disk"])
	}
}
