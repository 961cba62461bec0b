package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
	"github.com/nodeagent/nodeagent/supervisor"
)

// world is the host as the fakes see it: what exists, by name, and a way to
// make any call fail. Paths in it are relative to the state folder.
type world struct {
	t     testing.TB
	state string

	mu sync.Mutex
	// things are all that can be left behind, as "kind name".
	things map[string]bool
	// labels are those of snapshots.
	labels map[string]map[string]string
	// running are the supervisor's containers.
	running map[string]*supervisor.State
	// execs are the exec processes under way, closed when they end.
	execs map[string]*fakeExec
	subs  map[chan supervisor.Event]bool
	// fail makes the call of this name fail.
	fail map[string]error
	// block holds the call of this name up until the channel is closed.
	block map[string]chan struct{}
	// calls counts the calls of each name.
	calls map[string]int
	// deaf containers end by nothing but SIGKILL, immortal ones not even so.
	deaf, immortal bool
	// restored is what containers were restored from: the dump's content.
	restored map[string]string
	// kept is what network.GC was told to keep.
	kept []string
	// limits are the last ones set, by container or cgroup.
	limits map[string]*specs.LinuxResources
}

type fakeExec struct {
	done chan struct{}
	exit supervisor.Exit
}

func newWorld(t testing.TB) *world {
	t.Helper()
	logrus.SetOutput(io.Discard)
	return &world{
		t: t, state: t.TempDir(), things: map[string]bool{}, labels: map[string]map[string]string{},
		running: map[string]*supervisor.State{}, execs: map[string]*fakeExec{},
		subs: map[chan supervisor.Event]bool{}, fail: map[string]error{}, block: map[string]chan struct{}{},
		calls: map[string]int{}, restored: map[string]string{},
	}
}

// clone is the world as it is now, with its state folder copied.
func (w *world) clone() *world {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := newWorld(w.t)
	n.things, n.labels = maps.Clone(w.things), maps.Clone(w.labels)
	for id, s := range w.running {
		c := *s
		n.running[id] = &c
	}
	if err := os.CopyFS(n.state, os.DirFS(w.state)); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// call is made first by every fake.
func (w *world) call(ctx context.Context, name string) error {
	w.mu.Lock()
	err, block := w.fail[name], w.block[name]
	w.calls[name]++
	w.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.Join(err, ctx.Err())
}

func (w *world) setFail(name string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail[name] = err
}

func (w *world) setBlock(name string) (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := make(chan struct{})
	w.block[name] = ch
	return sync.OnceFunc(func() {
		close(ch)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.block, name)
	})
}

func (w *world) setLimits(of string, res *specs.LinuxResources) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.limits == nil {
		w.limits = map[string]*specs.LinuxResources{}
	}
	w.limits[of] = res
}

func (w *world) limitsOf(of string) *specs.LinuxResources {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.limits[of]
}

func (w *world) count(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[name]
}

func (w *world) add(kind, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.things[kind+" "+w.rel(name)] = true
}

func (w *world) remove(kind, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.things, kind+" "+w.rel(name))
}

func (w *world) has(kind, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.things[kind+" "+w.rel(name)]
}

// names lists what there is of a kind.
func (w *world) names(kind string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for thing := range w.things {
		if name, ok := strings.CutPrefix(thing, kind+" "); ok {
			out = append(out, name)
		}
	}
	return out
}

func (w *world) rel(path string) string { return strings.TrimPrefix(path, w.state+"/") }

// left lists all that exists, folders of the state directory included.
func (w *world) left() []string {
	w.mu.Lock()
	var out []string
	for thing := range w.things {
		out = append(out, thing)
	}
	for id := range w.running {
		out = append(out, "process "+id)
	}
	w.mu.Unlock()
	for _, dir := range []string{"sandboxes", "containers"} {
		entries, _ := os.ReadDir(filepath.Join(w.state, dir))
		for _, e := range entries {
			out = append(out, "folder "+filepath.Join(dir, e.Name()))
		}
	}
	return out
}

// The fakes.

type fakeImages struct{ *world }

func (f fakeImages) ResolveImage(ctx context.Context, ref string) (Image, error) {
	if err := f.call(ctx, "ResolveImage"); err != nil {
		return Image{}, err
	}
	if ref == "missing" {
		return Image{}, fmt.Errorf("image %s: %w", ref, errdefs.ErrNotFound)
	}
	return Image{ID: "sha256:1", ChainID: "chain", Config: &ocispec.Image{
		Config: ocispec.ImageConfig{Cmd: []string{"/bin/sh"}, Env: []string{"A=b"}, StopSignal: "SIGQUIT"},
	}}, nil
}

func (f fakeImages) Unpack(ctx context.Context, _, _ string) (snapshots.Opt, error) {
	return snapshots.WithLabels(nil), f.call(ctx, "Unpack")
}

type fakeSnapshots struct{ *world }

func (f fakeSnapshots) Prepare(ctx context.Context, key, _ string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if err := f.call(ctx, "Prepare"); err != nil {
		return nil, err
	}
	var info snapshots.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return nil, err
		}
	}
	f.add("snapshot", key)
	f.mu.Lock()
	f.labels[key] = info.Labels
	f.mu.Unlock()
	return nil, nil
}

func (f fakeSnapshots) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return f.Prepare(ctx, key, parent, opts...)
}

func (f fakeSnapshots) Mounts(ctx context.Context, _ string) ([]mount.Mount, error) {
	return nil, f.call(ctx, "Mounts")
}

func (f fakeSnapshots) Remove(ctx context.Context, key string) error {
	if err := f.call(ctx, "RemoveSnapshot"); err != nil {
		return err
	}
	if !f.has("snapshot", key) {
		return errdefs.ErrNotFound
	}
	f.remove("snapshot", key)
	return nil
}

func (f fakeSnapshots) Usage(context.Context, string) (snapshots.Usage, error) {
	return snapshots.Usage{Size: 10, Inodes: 2}, nil
}

func (f fakeSnapshots) Walk(ctx context.Context, fn snapshots.WalkFunc, _ ...string) error {
	f.mu.Lock()
	var infos []snapshots.Info
	for thing := range f.things {
		if key, ok := strings.CutPrefix(thing, "snapshot "); ok {
			infos = append(infos, snapshots.Info{Name: key, Labels: f.labels[key]})
		}
	}
	f.mu.Unlock()
	for _, info := range infos {
		if err := fn(ctx, info); err != nil {
			return err
		}
	}
	return nil
}

type fakeMounter struct{ *world }

func (f fakeMounter) Mount(ctx context.Context, _ []mount.Mount, target string) error {
	if err := f.call(ctx, "Mount"); err != nil {
		return err
	}
	if _, err := os.Stat(target); err != nil {
		return err
	}
	f.add("mount", target)
	return nil
}

func (f fakeMounter) Unmount(target string) error {
	if err := f.call(context.Background(), "Unmount"); err != nil {
		return err
	}
	f.remove("mount", target)
	return nil
}

type fakeNetwork struct{ *world }

func (f fakeNetwork) Add(ctx context.Context, a network.Attachment) (*network.Result, error) {
	// Half of the work is done before it fails.
	f.add("network", a.PodID)
	if err := f.call(ctx, "Add"); err != nil {
		return nil, err
	}
	return &network.Result{Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/24")}, Interface: "eth0"}, nil
}

func (f fakeNetwork) Del(ctx context.Context, a network.Attachment) error {
	if err := f.call(ctx, "Del"); err != nil {
		return err
	}
	f.remove("network", a.PodID)
	return nil
}

func (f fakeNetwork) Wired() ([]string, error) { return f.names("network"), nil }

func (f fakeNetwork) GC(ctx context.Context, keep []network.Attachment) error {
	f.mu.Lock()
	f.kept = nil
	for _, a := range keep {
		f.kept = append(f.kept, a.PodID)
	}
	f.mu.Unlock()
	return f.call(ctx, "GC")
}

type fakeCgroups struct{ *world }

func (f fakeCgroups) Create(ctx context.Context, path string, _ *specs.LinuxResources) error {
	f.add("cgroup", path)
	return f.call(ctx, "Create")
}

func (f fakeCgroups) Update(ctx context.Context, path string, res *specs.LinuxResources) error {
	f.setLimits(path, res)
	return f.call(ctx, "UpdateCgroup")
}

func (f fakeCgroups) OOMKills(string) (uint64, error) { return 0, nil }

func (f fakeCgroups) Cpuset(string) (cpus, mems string, err error) { return "0-1", "0", nil }

func (f fakeCgroups) Files(_ string, names []string) (map[string]string, error) {
	held := map[string]string{}
	for _, name := range names {
		held[name] = "held"
	}
	return held, nil
}

func (f fakeCgroups) Remove(ctx context.Context, path string) error {
	if err := f.call(ctx, "RemoveCgroup"); err != nil {
		return err
	}
	f.remove("cgroup", path)
	return nil
}

func (f fakeCgroups) Kill(ctx context.Context, _ string) error { return f.call(ctx, "KillCgroup") }

func (f fakeCgroups) Stats(ctx context.Context, _ string) (*cgroups.Stats, error) {
	if err := f.call(ctx, "Stats"); err != nil {
		return nil, err
	}
	return &cgroups.Stats{At: time.Now(), CPU: &cgroups.CPUStats{UsageNanos: 5}, Memory: &cgroups.MemoryStats{Usage: 7}}, nil
}

func (f fakeCgroups) ContainerUsage(ctx context.Context, path string) (*cgroups.Stats, error) {
	return f.Stats(ctx, path)
}

func (f fakeCgroups) PodUsage(ctx context.Context, path string) (*cgroups.Stats, error) {
	return f.Stats(ctx, path)
}

func (f fakeCgroups) Procs(string) ([]int, error) { return []int{os.Getpid()}, nil }

func (f fakeCgroups) Children(string) []string { return nil }

func (f fakeCgroups) Warm() {}

func (f fakeCgroups) Exists(path string) bool { return f.has("cgroup", path) }

type fakeNamespaces struct{ *world }

func (f fakeNamespaces) PrepareRoot(dir string) error { return os.MkdirAll(dir, 0o711) }

func (f fakeNamespaces) ReleaseRoot(string) error { return nil }

func (f fakeNamespaces) Pin(ctx context.Context, req namespace.Request) (map[string]string, error) {
	for i, k := range req.Kinds {
		f.add("pin", filepath.Join(req.Dir, string(k)))
		if i == 0 {
			// The others are not made when it fails.
			if err := f.call(ctx, "Pin"); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

func (f fakeNamespaces) PinPID(dir string, _ int) error {
	f.add("pin", filepath.Join(dir, "pid"))
	return f.call(context.Background(), "PinPID")
}

func (f fakeNamespaces) Unpin(dir string) error {
	if err := f.call(context.Background(), "Unpin"); err != nil {
		return err
	}
	for _, k := range []string{"net", "ipc", "uts", "pid", "user"} {
		f.remove("pin", filepath.Join(dir, k))
	}
	return nil
}

func (f fakeNamespaces) Pinned(path string) bool { return f.has("pin", path) }

func (f fakeNamespaces) Sysctls(ctx context.Context, _ string, _ map[string]string) error {
	return f.call(ctx, "Sysctls")
}

func (f fakeNamespaces) Run(ctx context.Context, _ string, _ namespace.Kind, fn func() error) error {
	if err := f.call(ctx, "Run"); err != nil {
		return err
	}
	return fn()
}

func (f fakeNamespaces) Links(ctx context.Context, _ string) ([]namespace.Link, error) {
	if err := f.call(ctx, "Links"); err != nil {
		return nil, err
	}
	return []namespace.Link{
		{Name: "lo", Loopback: true},
		{Name: "eth0", Rx: namespace.Counters{Bytes: 1, Packets: 2}, Tx: namespace.Counters{Bytes: 3, Dropped: 4}},
		{Name: "net1"},
	}, nil
}

func (f fakeNamespaces) MountShm(dir string, _ int) error {
	f.add("shm", dir)
	return f.call(context.Background(), "MountShm")
}

func (f fakeNamespaces) Unmount(path string) error {
	if err := f.call(context.Background(), "UnmountShm"); err != nil {
		return err
	}
	f.remove("shm", path)
	return nil
}

type fakeSupervisor struct{ *world }

func (f fakeSupervisor) Start(ctx context.Context, c supervisor.Container) (int, error) {
	if err := f.call(ctx, "Start"); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[c.ID] != nil {
		return 0, errdefs.ErrAlreadyExists
	}
	if c.Restore != "" {
		dump, err := os.ReadFile(filepath.Join(c.Restore, "pstree.img"))
		if err != nil {
			return 0, err
		}
		f.restored[c.ID] = string(dump)
	}
	f.running[c.ID] = &supervisor.State{ID: c.ID, Status: supervisor.StatusRunning, PID: 4242, StartedAt: time.Now()}
	return 4242, nil
}

// end lets a container end.
func (f fakeSupervisor) end(id string, exit supervisor.Exit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.running[id]
	if s == nil || s.Status == supervisor.StatusStopped {
		return
	}
	exit.At = time.Now()
	s.Status, s.PID, s.Exit = supervisor.StatusStopped, 0, &exit
	for ch := range f.subs {
		ch <- supervisor.Event{Type: supervisor.EventExit, ID: id, Exit: &exit}
	}
}

// killForMemory tells of the OOM killer.
func (f fakeSupervisor) killForMemory(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch := range f.subs {
		ch <- supervisor.Event{Type: supervisor.EventOOM, ID: id}
	}
}

func (f fakeSupervisor) Signal(ctx context.Context, id string, sig syscall.Signal, _ bool) error {
	if err := f.call(ctx, "Signal "+sig.String()); err != nil {
		return err
	}
	f.mu.Lock()
	known := f.running[id] != nil
	f.mu.Unlock()
	if !known {
		return errdefs.ErrNotFound
	}
	if f.immortal || (f.deaf && sig != syscall.SIGKILL) {
		return nil
	}
	f.end(id, supervisor.Exit{Code: 128 + int(sig), Signal: sig})
	return nil
}

func (f fakeSupervisor) Delete(ctx context.Context, id string) (supervisor.Exit, error) {
	if err := f.call(ctx, "Delete"); err != nil {
		return supervisor.Exit{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.running, id)
	return supervisor.Exit{}, nil
}

func (f fakeSupervisor) List(ctx context.Context) ([]supervisor.State, error) {
	if err := f.call(ctx, "List"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []supervisor.State
	for _, s := range f.running {
		list = append(list, *s)
	}
	return list, nil
}

func (f fakeSupervisor) Subscribe(ctx context.Context) (<-chan supervisor.Event, error) {
	if err := f.call(ctx, "Subscribe"); err != nil {
		return nil, err
	}
	ch := make(chan supervisor.Event, 100)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[ch] = true
	return ch, nil
}

// hangUp loses all connections.
func (f fakeSupervisor) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch := range f.subs {
		close(ch)
	}
	clear(f.subs)
}

func (f fakeSupervisor) Exec(ctx context.Context, e supervisor.Exec) (int, error) {
	if err := f.call(ctx, "Exec"); err != nil {
		return 0, err
	}
	x := &fakeExec{done: make(chan struct{})}
	f.mu.Lock()
	f.execs[e.ExecID] = x
	f.mu.Unlock()
	switch e.Process.Args[0] {
	case "echo":
		if e.Streams.Stdout != nil {
			fmt.Fprintln(e.Streams.Stdout, strings.Join(e.Process.Args[1:], " "))
		}
		x.exit.Code = 3
		close(x.done)
	case "flood":
		out, err := syscall.Dup(int(e.Streams.Stdout.Fd()))
		if err != nil {
			return 0, err
		}
		go func() {
			w := os.NewFile(uintptr(out), "flood")
			defer w.Close()
			block := make([]byte, 1<<20)
			for range 20 {
				if _, err := w.Write(block); err != nil {
					break
				}
			}
			close(x.done)
		}()
	case "linger":
		// A grandchild keeps the output open for ever.
		if _, err := syscall.Dup(int(e.Streams.Stdout.Fd())); err != nil {
			return 0, err
		}
		fmt.Fprint(e.Streams.Stdout, "early")
		close(x.done)
	case "sleep":
	}
	return 77, nil
}

func (f fakeSupervisor) WaitExec(ctx context.Context, _, execID string) (supervisor.Exit, error) {
	if err := f.call(ctx, "WaitExec"); err != nil {
		return supervisor.Exit{}, err
	}
	f.mu.Lock()
	x := f.execs[execID]
	f.mu.Unlock()
	if x == nil {
		return supervisor.Exit{}, errdefs.ErrNotFound
	}
	select {
	case <-x.done:
		return x.exit, nil
	case <-ctx.Done():
		return supervisor.Exit{}, ctx.Err()
	}
}

func (f fakeSupervisor) KillExec(ctx context.Context, _, execID string) error {
	if err := f.call(ctx, "KillExec"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if x := f.execs[execID]; x != nil {
		x.exit.Code = 137
		close(x.done)
	}
	return nil
}

func (f fakeSupervisor) Attach(ctx context.Context, _ string, s supervisor.Streams) error {
	if err := f.call(ctx, "Attach"); err != nil {
		return err
	}
	if s.Stdout != nil {
		fmt.Fprint(s.Stdout, "attached")
	}
	return nil
}

func (f fakeSupervisor) Resize(ctx context.Context, _ string, _, _ uint16) error {
	return f.call(ctx, "Resize")
}

func (f fakeSupervisor) ReopenLog(ctx context.Context, _ string) error {
	return f.call(ctx, "ReopenLog")
}

func (f fakeSupervisor) Update(ctx context.Context, id string, res *specs.LinuxResources) error {
	f.setLimits(id, res)
	return f.call(ctx, "Update")
}

func (f fakeSupervisor) StartPodInit(ctx context.Context, p supervisor.PodInit) (int, error) {
	f.add("init", p.ID)
	return 99, f.call(ctx, "StartPodInit")
}

func (f fakeSupervisor) StopPodInit(ctx context.Context, id string) error {
	if err := f.call(ctx, "StopPodInit"); err != nil {
		return err
	}
	f.remove("init", id)
	return nil
}

func (f fakeSupervisor) Close() error { return nil }

// manager makes a Manager on a world; root holds its records.
func (w *world) manager(root string) *Manager {
	w.t.Helper()
	m, err := newManager(w.t.Context(), Config{
		Root: root, State: w.state, KillWait: 500 * time.Millisecond, retryPause: 10 * time.Millisecond,
	}, Deps{
		Images: fakeImages{w}, Snapshots: fakeSnapshots{w}, Mounter: fakeMounter{w},
		Network: fakeNetwork{w}, Cgroups: fakeCgroups{w},
		Connect: func(ctx context.Context) (Supervisor, error) {
			return fakeSupervisor{w}, w.call(ctx, "Connect")
		},
	}, fakeNamespaces{w})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := m.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return m
}

// start makes a world with a Manager.
func start(t testing.TB) (*world, *Manager) {
	t.Helper()
	w := newWorld(t)
	return w, w.manager(t.TempDir())
}

func podRequest(name string) RunPodRequest {
	return RunPodRequest{Owner: OwnerCRI, Config: &runtime.PodSandboxConfig{
		Metadata: &runtime.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "u-" + name},
		Hostname: name,
	}}
}

func containerRequest(podID, name string) CreateContainerRequest {
	return CreateContainerRequest{PodID: podID, Config: &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: name},
		Image:    &runtime.ImageSpec{Image: "busybox"},
		LogPath:  name + ".log",
	}}
}

// running makes a pod with a container that runs.
func running(t testing.TB, m *Manager) (podID, id string) {
	t.Helper()
	podID, err := m.RunPod(t.Context(), podRequest("web"))
	if err != nil {
		t.Fatal(err)
	}
	id, err = m.CreateContainer(t.Context(), containerRequest(podID, "c"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.StartContainer(t.Context(), id, nil); err != nil {
		t.Fatal(err)
	}
	return podID, id
}

// eventually waits until ok, and fails the test when that takes too long.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// clean fails the test when anything is left, in the world or in records.
func clean(t testing.TB, w *world, m *Manager) {
	t.Helper()
	if left := w.left(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	pods, _ := m.podRecords.IDs()
	containers, _ := m.containerRecords.IDs()
	if len(pods)+len(containers) > 0 {
		t.Errorf("records left behind: %v %v", pods, containers)
	}
}
