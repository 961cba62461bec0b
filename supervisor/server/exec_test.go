package server_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/supervisor"
)

func execProcess(script string) *specs.Process {
	return &specs.Process{
		Args: []string{"/bin/sh", "-c", script},
		Env:  []string{"PATH=/bin", "HOME=/"},
		Cwd:  "/",
	}
}

// execOutput runs script and returns what it wrote and how it ended.
func (n *node) execOutput(id, execID, script string) (string, supervisor.Exit) {
	n.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Close()
	_, err = n.Exec(n.t.Context(), supervisor.Exec{
		ContainerID: id, ExecID: execID, Process: execProcess(script),
		Streams: supervisor.Streams{Stdout: w, Stderr: w},
	})
	w.Close()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		n.t.Fatal(err)
	}
	exit, err := n.WaitExec(n.t.Context(), id, execID)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(out), exit
}

func TestExec(t *testing.T) {
	n := startNode(t)
	n.start(n.container("one", "sleep 1000"))
	out, exit := n.execOutput("one", "a", "echo hello; echo x >&2; exit 9")
	if out != "hello\nx\n" || exit.Code != 9 {
		t.Errorf("output %q, exit %+v", out, exit)
	}
	const size = 10 << 20
	out, exit = n.execOutput("one", "big", fmt.Sprintf("head -c %d /dev/zero", size))
	if len(out) != size || exit.Code != 0 {
		t.Errorf("%d bytes, exit %+v", len(out), exit)
	}
	if out, _ = n.execOutput("one", "caps", "cat /proc/self/status"); !strings.Contains(out, "CapInh:\t0000000000000000") {
		t.Errorf("inheritable capabilities: %s", out)
	}
	if out, _ = n.execOutput("one", "fds", "ls /proc/self/fd"); strings.Fields(out)[len(strings.Fields(out))-1] != "3" {
		t.Errorf("descriptors: %q", out)
	}
	if _, err := n.WaitExec(t.Context(), "one", "a"); !errdefs.IsNotFound(err) {
		t.Errorf("exec whose end was told: %v", err)
	}
	if _, err := n.WaitExec(t.Context(), "one", "none"); !errdefs.IsNotFound(err) {
		t.Errorf("wait for an unknown exec: %v", err)
	}
}

func TestFailedExec(t *testing.T) {
	n := startNode(t)
	n.start(n.container("one", "sleep 1000"))
	for name, change := range map[string]func(*specs.Process){
		"program": func(p *specs.Process) { p.Args = []string{"no-such-program"} },
		"cwd":     func(p *specs.Process) { p.Cwd = "/no/such/directory" },
		"fd":      func(p *specs.Process) { p.Cwd = "/proc/self/fd/8" },
		"empty":   func(p *specs.Process) { p.Args = nil },
	} {
		p := execProcess("true")
		change(p)
		_, err := n.Exec(t.Context(), supervisor.Exec{ContainerID: "one", ExecID: name, Process: p})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := n.Exec(t.Context(), supervisor.Exec{ContainerID: "none", ExecID: "x", Process: execProcess("true")}); !errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), "exec x in container none: ") {
		t.Errorf("exec in an unknown container: %v", err)
	}
	n.start(n.container("two", "true"))
	n.exit("two")
	if _, err := n.Exec(t.Context(), supervisor.Exec{ContainerID: "two", ExecID: "x", Process: execProcess("true")}); !errdefs.IsFailedPrecondition(err) ||
		// What the agent says already is what it takes off the beginning.
		!strings.HasPrefix(err.Error(), "exec x in container two: it is not running") {
		t.Errorf("exec in an ended container: %v", err)
	}
}

func TestKillExecKillsTheTree(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "")
	c.Spec.Process.Args = []string{"sleep", "1111"}
	n.start(c)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = n.Exec(t.Context(), supervisor.Exec{
		ContainerID: "one", ExecID: "tree",
		Process: execProcess("(sleep 2222 & sleep 2222 & echo x; wait) & setsid sh -c 'sleep 2222 & sleep 2222' & sleep 2222 & echo x; wait"),
		Streams: supervisor.Streams{Stdout: w},
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, "tree has grown", func() error {
		if got := n.count("one"); got < 8 {
			return fmt.Errorf("%d processes", got)
		}
		return nil
	})
	if err := n.KillExec(t.Context(), "one", "tree"); err != nil {
		t.Fatal(err)
	}
	if exit, err := n.WaitExec(t.Context(), "one", "tree"); err != nil || exit.Signal != syscall.SIGKILL {
		t.Errorf("exit %+v, %v", exit, err)
	}
	// EOF comes once the last holder of the pipe is gone.
	if _, err := io.ReadAll(r); err != nil {
		t.Error(err)
	}
	testenv.Eventually(t, limit, "only init is left", func() error {
		if got := n.count("one"); got != 1 {
			return fmt.Errorf("%d processes", got)
		}
		return nil
	})
	if st, err := n.state("one"); err != nil || st.Status != supervisor.StatusRunning {
		t.Errorf("state %+v, %v", st, err)
	}
}

// count is the number of processes of a container.
func (n *node) count(id string) int {
	return len(strings.Fields(n.cgroupFile(id, "cgroup.procs")))
}

func TestExecTerminal(t *testing.T) {
	n := startNode(t)
	n.start(n.container("one", "sleep 1000"))
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	p := execProcess("stty size; exit 4")
	p.Terminal = true
	p.ConsoleSize = &specs.Box{Width: 100, Height: 30}
	_, err = n.Exec(t.Context(), supervisor.Exec{ContainerID: "one", ExecID: "tty", Process: p, ConsoleSocket: theirs})
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	master := receiveMaster(t, ours)
	defer master.Close()
	out := make([]byte, 100)
	got := 0
	master.SetReadDeadline(time.Now().Add(limit))
	for !strings.Contains(string(out[:got]), "\n") {
		m, err := master.Read(out[got:])
		if err != nil {
			t.Fatal(err)
		}
		got += m
	}
	if string(out[:got]) != "30 100\r\n" {
		t.Errorf("terminal says %q", out[:got])
	}
	if exit, err := n.WaitExec(t.Context(), "one", "tty"); err != nil || exit.Code != 4 {
		t.Errorf("exit %+v, %v", exit, err)
	}
}

// receiveMaster takes a terminal's master from a socket.
func receiveMaster(t *testing.T, socket *os.File) *os.File {
	t.Helper()
	c, err := net.FileConn(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, oobn, _, _, err := c.(*net.UnixConn).ReadMsgUnix(make([]byte, 4096), oob)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("%d messages, %v", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "master")
}
