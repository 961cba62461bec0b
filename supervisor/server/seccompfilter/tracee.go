package seccompfilter

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// limit bounds the making of one filter.
	limit = 10 * time.Second
	// maxInstructions is the kernel's BPF_MAXINSNS.
	maxInstructions = 4096
	// syscallStop is how a stop at a system call is told from a signal
	// (PTRACE_O_TRACESYSGOOD).
	syscallStop = syscall.SIGTRAP | 0x80
)

// What of a stop PTRACE_GET_SYSCALL_INFO tells (Linux 5.3).
const (
	opEntry = 1
	opExit  = 2
)

// syscallInfo is struct ptrace_syscall_info of linux/ptrace.h. At an exit the
// first of the numbers is the result.
type syscallInfo struct {
	op      uint8
	_       [3]uint8
	_       uint32
	_, _    uint64
	numbers [8]uint64
}

// tracee is a process that we trace.
type tracee struct {
	pid int

	mu     sync.Mutex // guards reaped: a number that was waited for is another's
	reaped bool
}

func (t *tracee) kill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.reaped {
		_ = unix.Kill(t.pid, unix.SIGKILL)
	}
}

// reap waits for the end of a killed process.
func (t *tracee) reap() {
	t.mu.Lock()
	reaped := t.reaped
	t.mu.Unlock()
	for !reaped {
		_, ended, err := t.wait()
		reaped = ended || err != nil
	}
}

// wait waits for the next stop, and returns the signal it is for.
func (t *tracee) wait() (sig syscall.Signal, ended bool, err error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(t.pid, &status, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, false, err
		}
		break
	}
	if status.Exited() || status.Signaled() {
		t.mu.Lock()
		t.reaped = true
		t.mu.Unlock()
		return 0, true, nil
	}
	return status.StopSignal(), false, nil
}

// run lets the process run until it has a filter, and returns that.
func (t *tracee) run() (Filter, error) {
	switch _, ended, err := t.wait(); {
	case err != nil:
		return Filter{}, err
	case ended:
		return Filter{}, errors.New("loader does not start")
	}
	if err := unix.PtraceSetOptions(t.pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return Filter{}, err
	}
	var flags uint64
	loading, deliver := false, 0
	for {
		if err := unix.PtraceSyscall(t.pid, deliver); err != nil {
			return Filter{}, err
		}
		sig, ended, err := t.wait()
		if err != nil {
			return Filter{}, err
		}
		if ended {
			return Filter{}, errors.New("loader ended without a filter")
		}
		if deliver = 0; sig != syscallStop {
			deliver = int(sig)
			continue
		}
		info, err := t.syscallInfo()
		switch {
		case err != nil:
			return Filter{}, err
		case info.op == opEntry:
			flags, loading = loads(info)
		case info.op == opExit && loading && int64(info.numbers[0]) >= 0:
			instructions, err := t.filter()
			return Filter{Flags: flags, Instructions: instructions}, err
		}
	}
}

// loads tells whether a system call loads a filter, and with which flags.
func loads(info syscallInfo) (flags uint64, ok bool) {
	args := info.numbers[1:]
	switch info.numbers[0] {
	case unix.SYS_SECCOMP:
		return args[1], args[0] == unix.SECCOMP_SET_MODE_FILTER && args[2] != 0
	case unix.SYS_PRCTL:
		return 0, args[0] == unix.PR_SET_SECCOMP && args[1] == unix.SECCOMP_MODE_FILTER
	}
	return 0, false
}

func (t *tracee) syscallInfo() (syscallInfo, error) {
	var info syscallInfo
	_, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(t.pid),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if e != 0 {
		return info, fmt.Errorf("ask for system call: %w", e)
	}
	return info, nil
}

// filter reads the newest filter of the stopped process.
func (t *tracee) filter() ([]unix.SockFilter, error) {
	instructions := make([]unix.SockFilter, maxInstructions)
	n, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(t.pid), 0,
		uintptr(unsafe.Pointer(&instructions[0])), 0, 0)
	if e != 0 {
		return nil, fmt.Errorf("read seccomp filter: %w", e)
	}
	return append([]unix.SockFilter(nil), instructions[:n]...), nil
}
