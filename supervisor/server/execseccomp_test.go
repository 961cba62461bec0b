package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/supervisor"
)

// The filter of a process is the same whoever runs it, with and without no_new_privs.
func TestExecSeccomp(t *testing.T) {
	n := startNode(t)
	errno := uint(unix.EXDEV)
	c := n.container("one", "sleep 1000")
	c.Spec.Process.Args = []string{"sleep", "1111"}
	c.Spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchAARCH64},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno},
			{Names: []string{"personality"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 8, Op: specs.OpEqualTo}}},
		},
	}
	n.start(c)
	for _, noNewPrivs := range []bool{false, true} {
		suffix := fmt.Sprint(noNewPrivs)
		process := execProcess("sleep 2222")
		process.Args, process.NoNewPrivileges = []string{"sleep", "2222"}, noNewPrivs
		before := n.libcontainerExecs()
		ours := n.execFilter("one", "ours-"+suffix, process)
		if n.libcontainerExecs() != before {
			t.Errorf("libcontainer was asked: %s", n.supervisorLog())
		}
		theirs := n.execFilter("one", "theirs-"+suffix, byLibcontainer(process))
		if len(ours) < 10 || !slices.Equal(ours, theirs) {
			t.Errorf("no_new_privs %v: %d instructions, libcontainer's %d", noNewPrivs, len(ours), len(theirs))
		}
		status := execProcess("cat /proc/self/status")
		status.NoNewPrivileges = noNewPrivs
		if out := n.execText("one", "status-"+suffix, status); !strings.Contains(out, "Seccomp:\t2\nSeccomp_filters:\t1\n") {
			t.Errorf("status: %s", out)
		}
	}
}

// A filter that is older than the system calls that look at a program keeps nothing from being run.
func TestExecUnderOldFilter(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "sleep 1000")
	c.Spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64},
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"faccessat2", "clone3", "close_range"}, Action: specs.ActErrno, ErrnoRet: new(uint(unix.EPERM))}},
	}
	n.start(c)
	for _, process := range []*specs.Process{execProcess("echo fine"), byLibcontainer(execProcess("echo fine"))} {
		if out := n.execText("one", fmt.Sprint("exec-", n.libcontainerExecs()), process); out != "fine\n" {
			t.Errorf("it says %q", out)
		}
	}
	if n.libcontainerExecs() != 1 {
		t.Error("libcontainer was asked for both")
	}
}

// execFilter runs a process and returns its newest seccomp filter.
func (n *node) execFilter(id, execID string, p *specs.Process) []unix.SockFilter {
	n.t.Helper()
	pid, err := n.Exec(n.t.Context(), supervisor.Exec{ContainerID: id, ExecID: execID, Process: p})
	if err != nil {
		n.t.Fatal(err)
	}
	// Whoever is traced while libcontainer's init, which has threads, executes the program is lost to its tracer.
	testenv.Eventually(n.t, limit, "the program is executed", func() error {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && string(comm) != filepath.Base(p.Args[0])+"\n" {
			err = fmt.Errorf("it is %s", comm)
		}
		return err
	})
	// The kernel knows a tracer by its thread, which ends with this.
	filters := make(chan []unix.SockFilter)
	go func() {
		runtime.LockOSThread()
		filters <- seizedFilter(pid)
	}()
	got := <-filters
	if err := n.KillExec(n.t.Context(), id, execID); err != nil {
		n.t.Error(err)
	}
	return got
}

func seizedFilter(pid int) []unix.SockFilter {
	if unix.PtraceSeize(pid) != nil || unix.PtraceInterrupt(pid) != nil {
		return nil
	}
	defer unix.PtraceDetach(pid)
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		return nil
	}
	out := make([]unix.SockFilter, os.Getpagesize())
	count, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), 0, uintptr(unsafe.Pointer(&out[0])), 0, 0)
	if e != 0 {
		return nil
	}
	return out[:count]
}
