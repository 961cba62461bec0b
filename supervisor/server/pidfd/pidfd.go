// Package pidfd holds on to a process by a descriptor, so that neither a
// signal nor a wait can ever reach another process that got the same number.
// Waiting parks a goroutine, not a thread.
package pidfd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Process is a process held by descriptor. Close releases it and leaves the
// process alone.
type Process struct {
	pid  int
	file *os.File
}

// Status is how a process ended.
type Status struct {
	// Code is the exit code; 128+n after signal n.
	Code int
	// Signal is what killed it, or zero.
	Signal syscall.Signal
	// Known is false when the process was nobody's child of ours and the
	// kernel does not tell how it ended.
	Known bool
}

// Open takes hold of a process. For a child not waited for yet it is certain
// to be the right one; for others, compare StartTime afterwards.
func Open(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.EINVAL) {
		// Linux before 5.10 lacks the flag.
		fd, err = unix.PidfdOpen(pid, 0)
		if err == nil {
			err = unix.SetNonblock(fd, true)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &Process{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// PID is the process's number in our PID namespace; it is only certain to be
// this process's while it has not been reaped.
func (p *Process) PID() int { return p.pid }

// Close releases the descriptor. A wait under way ends with an error.
func (p *Process) Close() error { return p.file.Close() }

// SyscallConn gives the descriptor to who must have it for a system call, or
// for a child to inherit. Its mode must stay.
func (p *Process) SyscallConn() (syscall.RawConn, error) { return p.file.SyscallConn() }

// Signal sends sig. ESRCH means that the process ended.
func (p *Process) Signal(sig syscall.Signal) error {
	var err error
	if cerr := p.control(func(fd int) { err = unix.PidfdSendSignal(fd, sig, nil, 0) }); cerr != nil {
		return cerr
	}
	return err
}

// Wait waits until the process ended and reaps it if it is our child. It ends
// early, with an error, only when p is closed.
func (p *Process) Wait() (Status, error) {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return Status{}, err
	}
	if err := raw.Read(func(fd uintptr) bool { return ended(int(fd)) }); err != nil {
		return Status{}, err
	}
	var status Status
	var werr error
	if err := p.control(func(fd int) { status, werr = reap(fd) }); err != nil {
		return Status{}, err
	}
	if errors.Is(werr, unix.ECHILD) {
		return p.foreignStatus(), nil
	}
	return status, werr
}

// ended reports, without waiting, whether the process has.
func ended(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// reap takes the status of an ended child.
func reap(fd int) (Status, error) {
	var info siginfo
	for {
		_, _, e := unix.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(fd),
			uintptr(unsafe.Pointer(&info)), unix.WEXITED, 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return Status{}, e
		}
		return info.status(), nil
	}
}

// siginfo is siginfo_t of a SIGCHLD on 64-bit machines, 128 bytes.
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	value                 int32
	_                     [100]byte
}

// clExited is CLD_EXITED of siginfo_t.
const clExited = 1

func (i *siginfo) status() Status {
	if i.code == clExited {
		return Status{Code: int(i.value), Known: true}
	}
	sig := syscall.Signal(i.value)
	return Status{Code: 128 + int(sig), Signal: sig, Known: true}
}

// foreignWait bounds the wait for the status of a process that is being reaped.
const foreignWait = 2 * time.Second

// foreignStatus finds the status of an ended process that is not our child:
// while it is a zombie /proc has it, and once its parent reaped it the kernel
// tells it of a descriptor that was held (Linux 6.15 and newer).
func (p *Process) foreignStatus() Status {
	ctx, cancel := context.WithTimeout(context.Background(), foreignWait)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		status, supported := p.exitInfo()
		if !status.Known {
			// The descriptor still answers for the number as long as
			// the zombie is there, so it cannot be another's.
			if st, err := ReadStat(p.pid); err == nil && st.State == 'Z' && p.Signal(0) == nil {
				return statusOf(st.ExitStatus)
			}
		}
		if status.Known || !supported {
			return status
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return status
		}
	}
}

const (
	// infoExit asks for the exit status (PIDFD_INFO_EXIT).
	infoExit = 1 << 3
	// getInfo is PIDFD_GET_INFO with the first version of its structure.
	getInfo = 0xC040FF0B
)

// exitInfo asks for the exit status. The kernel looks for it first and for the
// process then: of one that is reaped in between it has neither, and has the
// status when it is asked again.
func (p *Process) exitInfo() (status Status, supported bool) {
	if status, supported = p.readInfo(); supported {
		return status, supported
	}
	return p.readInfo()
}

// readInfo reads struct pidfd_info of linux/pidfd.h.
func (p *Process) readInfo() (status Status, supported bool) {
	info := struct {
		mask, cgroup uint64
		ids          [11]uint32
		exitCode     int32
	}{mask: infoExit}
	var e syscall.Errno
	if err := p.control(func(fd int) {
		_, _, e = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getInfo, uintptr(unsafe.Pointer(&info)))
	}); err != nil {
		return Status{}, false
	}
	if e != 0 {
		// ESRCH is what kernels without the exit status say of a reaped
		// process, ENOTTY what older ones say.
		return Status{}, false
	}
	if info.mask&infoExit == 0 {
		return Status{}, true
	}
	return statusOf(syscall.WaitStatus(info.exitCode)), true
}

func statusOf(ws syscall.WaitStatus) Status {
	if ws.Signaled() {
		return Status{Code: 128 + int(ws.Signal()), Signal: ws.Signal(), Known: true}
	}
	return Status{Code: ws.ExitStatus(), Known: true}
}

func (p *Process) control(do func(fd int)) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { do(int(fd)) })
}
