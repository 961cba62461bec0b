package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/supervisor"
)

func TestAdopt(t *testing.T) {
	n := startNode(t)
	const script = "i=0; while :; do i=$((i+1)); echo line $i; echo err $i >&2; [ -e /tmp/stop ] && exit 11; sleep 0.005; done"
	n.start(n.container("one", script))
	n.start(n.container("ended", "exit 3"))
	n.exit("ended")
	n.awaitLog("one", "line 5\n")
	before, err := n.state("one")
	if err != nil {
		t.Fatal(err)
	}
	n.killSupervisor()
	if _, err := n.List(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("list without a supervisor: %v", err)
	}
	n.ensure()
	after, err := n.state("one")
	if err != nil || after.PID != before.PID || after.Status != supervisor.StatusRunning || !after.StartedAt.Equal(before.StartedAt) {
		t.Errorf("adopted %+v, %v; was %+v", after, err, before)
	}
	if exit := n.exit("ended"); exit.Code != 3 {
		t.Errorf("exit of the ended one: %+v", exit)
	}
	if err := n.ReopenLog(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if _, exit := n.execOutput("one", "x", "echo > /tmp/stop"); exit.Code != 0 {
		t.Errorf("exec: %+v", exit)
	}
	exit := n.exit("one")
	if exit.Code != 11 || exit.Reason != "" {
		t.Errorf("exit %+v", exit)
	}
	checkLines(t, readLog(t, filepath.Join(n.logs, "one.log")))
}

// checkLines fails the test unless both streams count without a gap.
func checkLines(t *testing.T, log []record) {
	t.Helper()
	next := map[string]int{"line": 1, "err": 1}
	for _, r := range log {
		var word string
		var i int
		if _, err := fmt.Sscan(r.text, &word, &i); err != nil || r.tag != "F" || i != next[word] {
			t.Fatalf("record %v comes in place of %v", r, next)
		}
		next[word]++
	}
	if next["line"] != next["err"] {
		t.Errorf("lines are lost at the end: %v", next)
	}
}

func TestEndWithoutSupervisor(t *testing.T) {
	n := startNode(t)
	pid := n.start(n.container("one", "sleep 1000"))
	n.killSupervisor()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(limit.Milliseconds())); err != nil {
		t.Fatal(err)
	}
	n.ensure()
	exit := n.exit("one")
	// Known while the zombie is there; never success.
	if exit.Code != 137 && (exit.Code != 255 || exit.Reason != "SupervisorLost") {
		t.Errorf("exit %+v", exit)
	}
}

// A supervisor that is told to end leaves nothing unwritten, not even the beginning of a line.
func TestToldToEnd(t *testing.T) {
	n := startNode(t)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	c := n.container("one", "printf begin; read x < /tmp/gate; echo end; sleep 1000")
	c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{Destination: "/tmp/gate", Type: "bind", Source: gate, Options: []string{"bind"}})
	pid := n.start(c)
	var open *os.File
	testenv.Eventually(t, limit, "the container waits", func() (err error) {
		open, err = os.OpenFile(gate, os.O_WRONLY|unix.O_NONBLOCK, 0)
		return err
	})
	defer open.Close()
	out, err := os.Open(fmt.Sprintf("/proc/%d/fd/1", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	testenv.Eventually(t, limit, "the supervisor has the beginning of the line", func() error {
		if left, err := unix.IoctlGetInt(int(out.Fd()), unix.TIOCINQ); err != nil || left != 0 {
			return fmt.Errorf("%d bytes are left, %v", left, err)
		}
		return nil
	})
	n.endSupervisor(unix.SIGTERM)
	n.ensure()
	if _, err := open.WriteString("x\n"); err != nil {
		t.Fatal(err)
	}
	n.awaitLog("one", "end")
	if log := readLog(t, filepath.Join(n.logs, "one.log")); len(log) != 2 || log[0] != (record{"stdout", "P", "begin"}) || log[1] != (record{"stdout", "F", "end"}) {
		t.Errorf("log %v", log)
	}
}

func TestPauseOutlivesSupervisor(t *testing.T) {
	n := startNode(t)
	n.start(n.container("one", "sleep 1000"))
	if err := n.Pause(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	n.killSupervisor()
	n.ensure()
	if st, err := n.state("one"); err != nil || st.Status != supervisor.StatusPaused {
		t.Errorf("state %+v, %v", st, err)
	}
	if err := n.Resume(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if err := n.Signal(t.Context(), "one", syscall.SIGKILL, false); err != nil {
		t.Error(err)
	}
	if exit := n.exit("one"); exit.Code != 137 {
		t.Errorf("exit %+v", exit)
	}
}

// TestKilledDuringStart kills the supervisor at each step of a start.
func TestKilledDuringStart(t *testing.T) {
	for _, step := range []string{"open log", "create", "record", "make stdio", "run", "carry output", "record process"} {
		t.Run(strings.ReplaceAll(step, " ", "-"), func(t *testing.T) {
			testenv.Root(t)
			t.Setenv("NODEAGENT_FAILPOINTS", "supervisor.start."+step+".after=exit")
			n := startNode(t)
			if _, err := n.Start(t.Context(), n.container("one", "sleep 1000")); !errdefs.IsUnavailable(err) {
				t.Errorf("start: %v", err)
			}
			os.Unsetenv("NODEAGENT_FAILPOINTS")
			n.ensure()
			if step != "record process" {
				n.checkEmpty(t.Context())
				n.start(n.container("one", "sleep 1000"))
			}
			if st, err := n.state("one"); err != nil || st.Status != supervisor.StatusRunning {
				t.Errorf("state %+v, %v", st, err)
			}
		})
	}
}

func TestFailedStepIsUndone(t *testing.T) {
	for _, step := range []string{"record", "make stdio", "run", "carry output", "record process"} {
		t.Run(strings.ReplaceAll(step, " ", "-"), func(t *testing.T) {
			testenv.Root(t)
			t.Setenv("NODEAGENT_FAILPOINTS", "supervisor.start."+step+".after=error:1")
			n := startNode(t)
			if _, err := n.Start(t.Context(), n.container("one", "sleep 1000")); err == nil {
				t.Error("start succeeds")
			}
			n.checkEmpty(t.Context())
			n.start(n.container("one", "sleep 1000"))
		})
	}
}

func TestEnsureAtOnceStartsOne(t *testing.T) {
	n := startNode(t)
	if err := n.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	pids := make([]int, 8)
	var group sync.WaitGroup
	for i := range pids {
		group.Go(func() {
			c, err := supervisor.Ensure(t.Context(), n.launch)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			info, err := c.Info(t.Context())
			if err != nil {
				t.Error(err)
			}
			pids[i] = info.PID
		})
	}
	group.Wait()
	for _, pid := range pids {
		if pid != pids[0] || pid == 0 {
			t.Fatalf("supervisors %v", pids)
		}
	}
	info, err := n.Info(t.Context())
	if err != nil || info.PID != pids[0] {
		t.Errorf("client of the first supervisor finds %+v, %v", info, err)
	}
	if info.Version != "test" || !strings.HasPrefix(info.RuncVersion, "v1.") || info.StartedAt.IsZero() {
		t.Errorf("info %+v", info)
	}
	if sid, err := unix.Getsid(info.PID); err != nil || sid == 0 {
		t.Errorf("session %d, %v", sid, err)
	}
}

func TestSupervisorThatCannotStart(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	l := supervisor.Launch{
		Socket: filepath.Join(dir, strings.Repeat("x", 120)+".sock"), Binary: binary, State: filepath.Join(dir, "state"),
	}
	if _, err := supervisor.Ensure(t.Context(), l); err == nil || !strings.Contains(err.Error(), "invalid argument") {
		t.Errorf("too long a socket path: %v", err)
	}
	l.Socket, l.Binary = filepath.Join(dir, "s.sock"), filepath.Join(dir, "none")
	if _, err := supervisor.Ensure(t.Context(), l); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("missing binary: %v", err)
	}
}

func TestPodInit(t *testing.T) {
	n := startNode(t)
	pid, err := n.StartPodInit(t.Context(), supervisor.PodInit{ID: "pod", CgroupPath: n.cgroup + "/supervisor"})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := n.StartPodInit(t.Context(), supervisor.PodInit{ID: "pod"}); err != nil || again != pid {
		t.Errorf("second start: %d, %v; first %d", again, err, pid)
	}
	// What it shares with the supervisor costs nothing more.
	size := memory(t, pid, "Private_Dirty")
	t.Logf("pod init costs %d bytes", size)
	if size > 64<<10 {
		t.Errorf("pod init costs %d bytes", size)
	}
	if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(comm) != "pod-init\n" {
		t.Errorf("it is called %q", comm)
	}
	if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err != nil || len(fds) != 0 {
		t.Errorf("it holds %v, %v", fds, err)
	}
	c := n.container("one", "readlink /proc/self; sleep 1000 & exit 8")
	for i := range c.Spec.Linux.Namespaces {
		if isPIDNamespace(c.Spec.Linux.Namespaces[i]) {
			c.Spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/pid", pid)
		}
	}
	n.start(c)
	if exit := n.exit("one"); exit.Code != 8 {
		t.Errorf("exit %+v", exit)
	}
	if log := readLog(t, filepath.Join(n.logs, "one.log")); len(log) != 1 || log[0].text == "1" {
		t.Errorf("log %v", log)
	}
	n.killSupervisor()
	n.ensure()
	for range 2 {
		if err := n.StopPodInit(t.Context(), "pod"); err != nil {
			t.Error(err)
		}
	}
	if st, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(st), ") Z ") {
		t.Errorf("pod init lives: %s", st)
	}
	if _, err := n.StartPodInit(t.Context(), supervisor.PodInit{ID: "bad", NamespacePaths: []string{"/no/such/namespace"}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("missing namespace: %v", err)
	}
	if _, err := n.StartPodInit(t.Context(), supervisor.PodInit{ID: "bad", NamespacePaths: []string{"/etc/passwd"}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no namespace: %v", err)
	}
}

func TestWishesAreClamped(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "id -u; exit 0")
	low := -1000
	c.Spec.Process.OOMScoreAdj = &low
	c.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 20, Hard: 1 << 30}}
	c.Spec.Process.Capabilities.Bounding = append(c.Spec.Process.Capabilities.Bounding, "CAP_SYS_RESOURCE")
	n.start(c)
	if exit := n.exit("one"); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
}
