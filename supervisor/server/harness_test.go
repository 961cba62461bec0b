package server_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/supervisor"
)

// limit is how long anything in these tests may take.
const limit = 30 * time.Second

// binary and rootfs are made once by TestMain.
var binary, rootfs string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 || os.Getenv("NODEAGENT_TEST_ROOT") == "no" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "nodesupervisor-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary, rootfs = filepath.Join(dir, "nodesupervisor"), filepath.Join(dir, "rootfs")
	build := exec.Command("go", "build", "-tags", "seccomp,netgo,osusergo",
		"-ldflags", "-s -w -linkmode external -extldflags -static -X main.version=test",
		"-o", binary, "github.com/nodeagent/nodeagent/cmd/nodesupervisor")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build nodesupervisor: %v\n%s", err, out)
		return 1
	}
	if err := makeRootfs(rootfs); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// makeRootfs copies a shell and some programs with their libraries.
func makeRootfs(dir string) error {
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"sh", "cat", "sleep", "head", "tr", "stty", "seq", "setsid", "ls", "id", "dd", "readlink", "tail", "true", "date"} {
		path, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
		libs, err := exec.Command("ldd", path).Output()
		if err != nil {
			return fmt.Errorf("ldd %s: %w", path, err)
		}
		for _, word := range strings.Fields(string(libs)) {
			if strings.HasPrefix(word, "/") {
				if err := copyFile(word, filepath.Join(dir, word)); err != nil {
					return err
				}
			}
		}
		if err := copyFile(path, filepath.Join(dir, "bin", name)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// node is a supervisor of one test, with a client.
type node struct {
	*supervisor.Client
	t      *testing.T
	launch supervisor.Launch
	cgroup string
	logs   string
}

// nodes numbers the supervisors of this process.
var nodes atomic.Int64

// startNode starts a supervisor that the test's end takes down.
func startNode(t *testing.T) *node {
	t.Helper()
	testenv.Root(t)
	dir := t.TempDir()
	n := &node{
		t:      t,
		cgroup: fmt.Sprintf("/nodeagent-test-%d-%d", os.Getpid(), nodes.Add(1)),
		logs:   filepath.Join(dir, "logs"),
	}
	n.launch = supervisor.Launch{
		Socket:       filepath.Join(dir, "s.sock"),
		Binary:       binary,
		State:        filepath.Join(dir, "state"),
		CgroupParent: n.cgroup,
		LogFile:      filepath.Join(dir, "supervisor.log"),
		LogLevel:     "debug",
		Path:         os.Getenv("PATH"),
	}
	n.ensure()
	t.Cleanup(n.takeDown)
	return n
}

func (n *node) ensure() {
	n.t.Helper()
	c, err := supervisor.Ensure(n.t.Context(), n.launch)
	if err != nil {
		n.t.Fatalf("%v\n%s", err, n.supervisorLog())
	}
	n.Client = c
}

func (n *node) supervisorLog() string {
	data, _ := os.ReadFile(n.launch.LogFile)
	return string(data)
}

// takeDown deletes everything and checks that nothing stays.
func (n *node) takeDown() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if n.t.Failed() {
		n.t.Logf("supervisor's log:\n%s", n.supervisorLog())
	}
	states, err := n.List(ctx)
	if err != nil {
		n.t.Errorf("list: %v", err)
	}
	for _, st := range states {
		if _, err := n.Delete(ctx, st.ID); err != nil {
			n.t.Errorf("delete: %v", err)
		}
	}
	n.checkEmpty(ctx)
	if err := n.Shutdown(ctx); err != nil {
		n.t.Errorf("shutdown: %v", err)
	}
	n.Close()
	testenv.Eventually(n.t, limit, "cgroup is removed", func() error {
		if left := n.cgroupDirs(); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
}

// checkEmpty fails the test when the state directory or the cgroup holds
// anything of a container.
func (n *node) checkEmpty(ctx context.Context) {
	n.t.Helper()
	for _, dir := range []string{"containers", "records", "exits", "containers-io", "podinits"} {
		entries, err := os.ReadDir(filepath.Join(n.launch.State, dir))
		if err != nil {
			n.t.Error(err)
		}
		for _, e := range entries {
			n.t.Errorf("left in state: %s/%s", dir, e.Name())
		}
	}
	for _, dir := range n.cgroupDirs() {
		if !strings.HasSuffix(dir, n.cgroup) && !strings.HasSuffix(dir, n.cgroup+"/supervisor") {
			n.t.Errorf("left cgroup %s", dir)
		}
	}
}

func (n *node) cgroupDirs() []string {
	var dirs []string
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		for _, depth := range []string{"", "/*"} {
			found, _ := filepath.Glob(pattern + n.cgroup + depth)
			for _, f := range found {
				if st, err := os.Stat(f); err == nil && st.IsDir() {
					dirs = append(dirs, f)
				}
			}
		}
	}
	return dirs
}

// container is a container that runs script in a shell.
func (n *node) container(id, script string) supervisor.Container {
	return supervisor.Container{
		ID:      id,
		Spec:    n.spec(id, "/bin/sh", "-c", script),
		LogPath: filepath.Join(n.logs, id+".log"),
	}
}

func (n *node) spec(id string, args ...string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD"}
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: rootfs},
		Process: &specs.Process{
			Args: args,
			Env:  []string{"PATH=/bin"},
			Cwd:  "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: caps, Effective: caps, Permitted: caps,
			},
		},
		Hostname: "test",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		},
		Linux: &specs.Linux{
			CgroupsPath: n.cgroup + "/" + id,
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
			},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
			MaskedPaths:   []string{"/proc/kcore"},
			ReadonlyPaths: []string{"/proc/sys"},
		},
	}
}

// start starts a container and fails the test when that fails.
func (n *node) start(c supervisor.Container) int {
	n.t.Helper()
	pid, err := n.Start(n.t.Context(), c)
	if err != nil {
		n.t.Fatal(err)
	}
	return pid
}

// state returns what List tells of a container.
func (n *node) state(id string) (supervisor.State, error) {
	states, err := n.List(n.t.Context())
	if err != nil {
		return supervisor.State{}, err
	}
	for _, st := range states {
		if st.ID == id {
			return st, nil
		}
	}
	return supervisor.State{}, fmt.Errorf("container %s is not listed", id)
}

// exit waits for a container's end.
func (n *node) exit(id string) supervisor.Exit {
	n.t.Helper()
	var exit supervisor.Exit
	testenv.Eventually(n.t, limit, "container "+id+" ends", func() error {
		st, err := n.state(id)
		if err != nil {
			return err
		}
		if st.Exit == nil {
			return fmt.Errorf("status %s", st.Status)
		}
		exit = *st.Exit
		return nil
	})
	return exit
}

// record is one line of a CRI log.
type record struct {
	stream, tag, text string
}

// readLog parses a CRI log file.
func readLog(t *testing.T, path string) []record {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var records []record
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		parts := strings.SplitN(scan.Text(), " ", 4)
		if len(parts) != 4 {
			t.Fatalf("malformed log line %q", scan.Text())
		}
		if _, err := time.Parse(time.RFC3339Nano, parts[0]); err != nil {
			t.Fatalf("log line %q: %v", scan.Text(), err)
		}
		records = append(records, record{parts[1], parts[2], parts[3]})
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	return records
}

// awaitLog waits until the log holds text.
func (n *node) awaitLog(id, text string) {
	n.t.Helper()
	path := filepath.Join(n.logs, id+".log")
	testenv.Eventually(n.t, limit, fmt.Sprintf("log of %s holds %q", id, text), func() error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.Contains(string(data), text) {
			return fmt.Errorf("log is %.300q", data)
		}
		return nil
	})
}

// killSupervisor kills the supervisor as the kernel would and waits for its
// end; containers stay.
func (n *node) killSupervisor() {
	n.t.Helper()
	n.endSupervisor(unix.SIGKILL)
}

func (n *node) endSupervisor(sig unix.Signal) {
	n.t.Helper()
	info, err := n.Info(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(info.PID, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Kill(info.PID, sig); err != nil {
		n.t.Fatal(err)
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, int(limit.Milliseconds())); err != nil && err != unix.EINTR {
		n.t.Fatal(err)
	}
}
