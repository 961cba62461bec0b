package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/supervisor"
)

func TestRunToExitCode(t *testing.T) {
	n := startNode(t)
	pid := n.start(n.container("one", "echo out; echo err >&2; exit 42"))
	if pid <= 0 {
		t.Errorf("process ID %d", pid)
	}
	exit := n.exit("one")
	if exit.Code != 42 || exit.Signal != 0 || exit.OOMKilled || exit.Reason != "" || exit.At.IsZero() {
		t.Errorf("exit %+v", exit)
	}
	log := readLog(t, filepath.Join(n.logs, "one.log"))
	for _, want := range []record{{"stdout", "F", "out"}, {"stderr", "F", "err"}} {
		if !slices.Contains(log, want) {
			t.Errorf("log %v lacks %v", log, want)
		}
	}
	got, err := n.Delete(t.Context(), "one")
	if err != nil || got.Code != 42 {
		t.Errorf("delete: %+v, %v", got, err)
	}
	if got, err := n.Delete(t.Context(), "one"); err != nil || got != (supervisor.Exit{}) {
		t.Errorf("second delete: %+v, %v", got, err)
	}
}

func TestExitEventComesAfterLog(t *testing.T) {
	n := startNode(t)
	events, err := n.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.start(n.container("one", "seq 1 20000; exit 3"))
	e := <-events
	if e.Type != supervisor.EventExit || e.ID != "one" || e.Exit == nil || e.Exit.Code != 3 {
		t.Fatalf("event %+v", e)
	}
	if got := len(readLog(t, filepath.Join(n.logs, "one.log"))); got != 20000 {
		t.Errorf("%d lines are in the log", got)
	}
}

func TestSignal(t *testing.T) {
	n := startNode(t)
	n.start(n.container("kill", "sleep 1000"))
	n.start(n.container("term", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"))
	n.awaitLog("term", "up")
	if err := n.Signal(t.Context(), "term", syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if exit := n.exit("term"); exit.Code != 7 {
		t.Errorf("exit %+v", exit)
	}
	if err := n.Signal(t.Context(), "kill", syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	if exit := n.exit("kill"); exit.Code != 137 || exit.Signal != syscall.SIGKILL || exit.OOMKilled {
		t.Errorf("exit %+v", exit)
	}
	if err := n.Signal(t.Context(), "kill", syscall.SIGKILL, false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("signal to an ended container: %v", err)
	}
	if err := n.Signal(t.Context(), "none", syscall.SIGKILL, false); !errdefs.IsNotFound(err) {
		t.Errorf("signal to an unknown container: %v", err)
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	n := startNode(t)
	noProgram := n.container("program", "")
	noProgram.Spec.Process.Args = []string{"no-such-program"}
	noFile := n.container("file", "")
	noFile.Spec.Process.Args = []string{"/no/such/file"}
	noRoot := n.container("root", "true")
	noRoot.Spec.Root.Path = "/no/such/root"
	noCwd := n.container("cwd", "true")
	noCwd.Spec.Process.Cwd = "/proc/self/fd/9"
	badID := n.container("id", "true")
	badID.ID = "../x"
	for name, test := range map[string]struct {
		c    supervisor.Container
		text string
	}{
		"program": {noProgram, `exec: "no-such-program": executable file not found in $PATH`},
		"file":    {noFile, "/no/such/file"},
		"root":    {noRoot, "/no/such/root"},
		"cwd":     {noCwd, "/proc/self/fd/9"},
		"id":      {badID, "../x"},
	} {
		_, err := n.Start(t.Context(), test.c)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), test.text) || !strings.Contains(err.Error(), test.c.ID) {
			t.Errorf("%s: error %v", name, err)
		}
		n.checkEmpty(t.Context())
	}
	n.start(n.container("one", "sleep 1000"))
	if _, err := n.Start(t.Context(), n.container("one", "true")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second start: %v", err)
	}
	if st, err := n.state("one"); err != nil || st.Status != supervisor.StatusRunning {
		t.Errorf("after second start: %+v, %v", st, err)
	}
}

func TestOOMKilled(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "dd if=/dev/zero of=/tmp/x bs=1M count=200; tail /dev/zero")
	limit := int64(24 << 20)
	c.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	n.start(c)
	if exit := n.exit("one"); !exit.OOMKilled || exit.Code == 0 {
		t.Errorf("exit %+v", exit)
	}
}

func TestSharedPIDNamespaceLeavesNoProcess(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "sleep 1000 & setsid sleep 1000 & echo up; sleep 0.2; exit 5")
	c.Spec.Linux.Namespaces = slices.DeleteFunc(c.Spec.Linux.Namespaces, isPIDNamespace)
	c.Spec.Mounts[0] = bind("/proc", "/proc")
	n.start(c)
	if exit := n.exit("one"); exit.Code != 5 {
		t.Errorf("exit %+v", exit)
	}
	for _, dir := range n.cgroupDirs() {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err == nil && strings.HasSuffix(dir, "/one") && len(data) > 0 {
			t.Errorf("%s holds %q", dir, data)
		}
	}
}

func TestPauseUpdateResume(t *testing.T) {
	n := startNode(t)
	n.start(n.container("one", "while :; do echo tick; sleep 0.01; done"))
	n.awaitLog("one", "tick")
	if err := n.Pause(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if st, err := n.state("one"); err != nil || st.Status != supervisor.StatusPaused {
		t.Errorf("state %+v, %v", st, err)
	}
	if err := n.Resume(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	pids := int64(77)
	if err := n.Update(t.Context(), "one", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}); err != nil {
		t.Fatal(err)
	}
	if got := n.cgroupFile("one", "pids.max"); got != "77" {
		t.Errorf("pids.max is %q", got)
	}
	if err := n.Pause(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	// A frozen container can be deleted.
	if exit, err := n.Delete(t.Context(), "one"); err != nil || exit.Code != 137 {
		t.Errorf("delete: %+v, %v", exit, err)
	}
}

func isPIDNamespace(ns specs.LinuxNamespace) bool { return ns.Type == specs.PIDNamespace }

func bind(from, to string) specs.Mount {
	return specs.Mount{Source: from, Destination: to, Type: "bind", Options: []string{"rbind"}}
}

// cgroupFile reads a file of a container's cgroup, in whichever hierarchy it is.
func (n *node) cgroupFile(id, name string) string {
	n.t.Helper()
	for _, dir := range n.cgroupDirs() {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil && filepath.Base(dir) == id {
			return strings.TrimSpace(string(data))
		}
	}
	n.t.Fatalf("no %s of container %s", name, id)
	return ""
}

// A container that only forks is ended all the same.
func TestForkBombIsDeleted(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "f() { f & f & f & }; f; sleep 1000")
	most := int64(300)
	c.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &most}
	n.start(c)
	testenv.Eventually(t, limit, "it has forked", func() error {
		if got := n.count("one"); got < 100 {
			return fmt.Errorf("%d processes", got)
		}
		return nil
	})
	at := time.Now()
	if _, err := n.Delete(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	t.Log("deleted in", time.Since(at))
}
