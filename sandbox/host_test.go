package sandbox

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
	"github.com/nodeagent/nodeagent/snapshotter"
)

// realMounter mounts one prepared overlay, whatever it is asked for.
type realMounter struct {
	mounts []mount.Mount
}

func (r realMounter) Mount(ctx context.Context, mounts []mount.Mount, target string) error {
	if len(mounts) == 0 {
		mounts = r.mounts
	}
	return snapshotter.Mount(ctx, mounts, target)
}

func (realMounter) Unmount(target string) error { return snapshotter.Unmount(target) }

// overlay makes an overlay of one layer, in which everything belongs to root.
func overlay(t *testing.T) []mount.Mount {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lower", "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"index=off", "workdir=" + dir + "/work", "upperdir=" + dir + "/upper", "lowerdir=" + dir + "/lower",
	}}}
}

// mountedSnapshots gives real mounts.
type mountedSnapshots struct {
	fakeSnapshots
	mounts []mount.Mount
}

func (s mountedSnapshots) Mounts(context.Context, string) ([]mount.Mount, error) {
	return s.mounts, nil
}

// realManager has real namespaces and mounts; all else is faked.
func realManager(t *testing.T) (*world, *Manager) {
	t.Helper()
	testenv.Root(t)
	w := newWorld(t)
	mounts := overlay(t)
	m, err := newManager(t.Context(), Config{Root: t.TempDir(), State: w.state}, Deps{
		Images: fakeImages{w}, Snapshots: mountedSnapshots{fakeSnapshots{w}, mounts}, Mounter: realMounter{mounts},
		Network: fakeNetwork{w}, Cgroups: fakeCgroups{w},
		Connect: func(context.Context) (Supervisor, error) { return fakeSupervisor{w}, nil },
	}, hostNamespaces{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		data, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(data), w.state) {
			t.Errorf("mounts are left below %s", w.state)
		}
	})
	return w, m
}

// namespaced is a request whose containers have PID namespaces of their own.
func namespaced(users *runtime.UserNamespace) RunPodRequest {
	req := podRequest("web")
	req.Config.Linux = &runtime.LinuxPodSandboxConfig{
		Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
		SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: &runtime.NamespaceOption{
			Pid: runtime.NamespaceMode_CONTAINER, UsernsOptions: users,
		}},
	}
	return req
}

func TestRealPod(t *testing.T) {
	w, m := realManager(t)
	podID, err := m.RunPod(t.Context(), namespaced(nil))
	if err != nil {
		t.Fatal(err)
	}
	p, _ := m.Pod(podID)
	if !namespace.Pinned(p.NetNS) {
		t.Errorf("no network namespace at %q", p.NetNS)
	}
	forward(t, m, p)
	if _, err := m.CreateContainer(t.Context(), containerRequest(podID, "c")); err != nil {
		t.Fatal(err)
	}
	if err := m.RemovePod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	clean(t, w, m)
}

// forward sends a line to a server that listens in the pod alone, and gets it
// back after both ends said that they are done.
func forward(t *testing.T, m *Manager, p Pod) {
	t.Helper()
	var listener net.Listener
	err := namespace.Run(t.Context(), p.NetNS, namespace.Net, func() (err error) {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			return errors.New(string(out))
		}
		listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		// Echo only once the other side has finished.
		data, _ := io.ReadAll(conn)
		_, _ = conn.Write(data)
	}()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := unixConn(t, pair[0]), unixConn(t, pair[1])
	done := make(chan error, 1)
	go func() {
		done <- m.PortForward(t.Context(), p.ID, uint16(listener.Addr().(*net.TCPAddr).Port), theirs)
	}()
	if _, err := ours.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if err := ours.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(ours); err != nil || string(data) != "ping" {
		t.Errorf("got %q, %v", data, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := m.PortForward(t.Context(), p.ID, 1, theirs); err == nil {
		t.Error("no error for a port that nobody listens on")
	}
}

func unixConn(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "pair")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

// In a user namespace the image's root is the pod's root, on disk and off.
func TestRealUserNamespace(t *testing.T) {
	w, m := realManager(t)
	ids := []*runtime.IDMapping{{HostId: 1000000, Length: 65536}}
	podID, err := m.RunPod(t.Context(), namespaced(&runtime.UserNamespace{Uids: ids, Gids: ids}))
	if err != nil {
		t.Fatal(err)
	}
	id, err := m.CreateContainer(t.Context(), containerRequest(podID, "c"))
	if err != nil {
		t.Fatal(err)
	}
	c, _ := m.Container(id)
	for _, path := range []string{c.Rootfs, filepath.Join(c.Rootfs, "file"), filepath.Dir(c.Rootfs)} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Uid != 1000000 || st.Gid != 1000000 {
			t.Errorf("%s belongs to %d:%d, %v", path, st.Uid, st.Gid, err)
		}
	}
	unmapped := containerRequest(podID, "unmapped")
	unmapped.Config.Linux = &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{
		RunAsUser: &runtime.Int64Value{Value: 70000},
	}}
	if _, err := m.CreateContainer(t.Context(), unmapped); !errdefs.IsInvalidArgument(err) {
		t.Errorf("as a user that is not mapped: %v", err)
	}
	if err := m.RemovePod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	clean(t, w, m)
}

// A terminal's master comes over the socket as libcontainer sends it.
func TestReceiveConsole(t *testing.T) {
	near, far, err := consolePair()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	defer far.Close()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer master.Close()
	rights := unix.UnixRights(int(master.Fd()))
	if err := unix.Sendmsg(int(far.Fd()), []byte("/dev/ptmx"), rights, nil, 0); err != nil {
		t.Fatal(err)
	}
	got, err := receiveConsole(near)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if err := setSize(got, TerminalSize{Width: 80, Height: 24}); err != nil {
		t.Error(err)
	}
	size, err := unix.IoctlGetWinsize(int(master.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col != 80 || size.Row != 24 {
		t.Errorf("size %+v, %v", size, err)
	}
	far.Close()
	if _, err := receiveConsole(near); err == nil {
		t.Error("no error from a closed socket")
	}
}
