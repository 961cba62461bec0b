package namespace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// root is a prepared folder that is taken down after the test.
func root(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := PrepareRoot(dir); err != nil {
		t.Fatal(err)
	}
	if err := PrepareRoot(dir); err != nil {
		t.Fatalf("second time: %v", err)
	}
	t.Cleanup(func() {
		if err := ReleaseRoot(dir); err != nil {
			t.Error(err)
		}
		if mounted, err := isMountRoot(dir); err != nil || mounted {
			t.Errorf("still mounted: %v, %v", mounted, err)
		}
	})
	return dir
}

// inside reads a file in the pinned namespace.
func inside(t *testing.T, pin string, kind Kind, path string) string {
	t.Helper()
	var data []byte
	err := Run(t.Context(), pin, kind, func() (err error) {
		data, err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestPin(t *testing.T) {
	testenv.Root(t)
	host, _ := os.Hostname()
	for _, owned := range []bool{false, true} {
		dir := filepath.Join(root(t), "ns")
		req := Request{
			Dir: dir, Kinds: []Kind{Net, IPC, UTS}, Hostname: "pod-one",
			Sysctls: map[string]string{
				"net.ipv4.ip_forward":                 "1",
				"net/ipv4/ping_group_range":           "0\t2000",
				"net.ipv4.conf.eth0/1.rp_filter":      "2",
				"kernel.shm_rmid_forced":              "1",
				"kernel.msgmax":                       "16384",
				"fs.mqueue.msg_max":                   "20",
				"net.ipv4.ip_unprivileged_port_start": "0",
			},
		}
		if owned {
			req.UIDs = []Mapping{{0, 1000000, 65536}}
			req.GIDs = []Mapping{{0, 1000000, 65536}}
		}
		later, err := Pin(t.Context(), req)
		if err != nil {
			t.Fatalf("owned %v: %v", owned, err)
		}
		if len(later) != 1 || later["net.ipv4.conf.eth0/1.rp_filter"] != "2" {
			t.Errorf("later: %v", later)
		}
		for _, k := range req.Kinds {
			if !Pinned(filepath.Join(dir, string(k))) {
				t.Errorf("%s is not pinned", k)
			}
		}
		if owned != Pinned(filepath.Join(dir, string(User))) {
			t.Errorf("user namespace pinned: %v", !owned)
		}
		for _, c := range []struct {
			kind       Kind
			path, want string
		}{
			{UTS, "/proc/sys/kernel/hostname", "pod-one"},
			{Net, "/proc/sys/net/ipv4/ip_forward", "1"},
			{IPC, "/proc/sys/kernel/msgmax", "16384"},
			{IPC, "/proc/sys/fs/mqueue/msg_max", "20"},
		} {
			if got := inside(t, filepath.Join(dir, string(c.kind)), c.kind, c.path); got != c.want {
				t.Errorf("owned %v: %s is %q, want %q", owned, c.path, got, c.want)
			}
		}
		if err := Unpin(dir); err != nil {
			t.Error(err)
		}
		if err := Unpin(dir); err != nil {
			t.Errorf("second time: %v", err)
		}
	}
	if now, _ := os.Hostname(); now != host {
		t.Errorf("the host is now called %q", now)
	}
}

// The first thread of the process must stay in the host's namespaces.
func TestMainThreadStays(t *testing.T) {
	testenv.Root(t)
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		err := onThread(t.Context(), func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("on the first thread")
			}
			return unix.Unshare(unix.CLONE_NEWNET)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if after, _ := os.Readlink("/proc/self/ns/net"); after != before {
		t.Errorf("moved from %s to %s", before, after)
	}
}

func TestPinPID(t *testing.T) {
	testenv.Root(t)
	dir := filepath.Join(root(t), "ns")
	if err := PinPID(dir, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if !Pinned(filepath.Join(dir, "pid")) {
		t.Error("not pinned")
	}
	if err := Unpin(dir); err != nil {
		t.Error(err)
	}
}

func TestSysctlPath(t *testing.T) {
	for name, want := range map[string]Kind{
		"net.core.somaxconn": Net, "net/core/somaxconn": Net, "kernel.sem": IPC, "kernel.shmmax": IPC, "fs.mqueue.msg_max": IPC,
		"kernel.core_pattern": "", "kernel.hostname": "", "kernel.semx": "", "net/../kernel/core_pattern": "", "net...kernel": "",
		"kernel.shm/../core_pattern": "", "kernel/shm/../core_pattern": "", "net.core=1": "", "": "", strings.Repeat("net.a", 100): "",
	} {
		kind, path, err := sysctlPath(name)
		if kind != want || (err == nil) != (want != "") || (err != nil && !errdefs.IsInvalidArgument(err)) {
			t.Errorf("%q: %q, %q, %v", name, kind, path, err)
		}
	}
}

// What is of a namespace that the pod shares with the host is not written,
// whoever forgot to check.
func TestSysctlsOfTheHostAreRefused(t *testing.T) {
	for name, own := range map[string][]Kind{"net.core.somaxconn": {IPC, UTS}, "kernel.shmmax": {Net}, "kernel.core_pattern": {Net, IPC}} {
		if err := writeSysctls(map[string]string{name: "1"}, own, -1, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzSysctlPath(f *testing.F) {
	for _, s := range []string{"net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/x", "kernel.shm..", "a/../b", "kernel.sem"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		_, path, err := sysctlPath(name)
		if err != nil {
			return
		}
		if filepath.Clean(path) != path || filepath.IsAbs(path) || strings.HasPrefix(path, "..") {
			t.Errorf("%q became %q", name, path)
		}
	})
}
