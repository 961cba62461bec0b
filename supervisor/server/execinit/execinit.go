// Package execinit runs a further process in a running container without
// libcontainer's init: that is a Go program with a configuration in JSON, and
// costs several milliseconds of processor time, where probes come by the
// hundred a second. This one is the supervisor's program run anew and turned
// aside by a C constructor before the Go runtime starts. It does what
// libcontainer's does for an exec, in the same order, for what most execs are;
// others (see package server) are left to libcontainer.
//
// A first process joins the cgroups of v1 on the host, then the namespaces, all
// of them by one descriptor of the container's first process, and makes the
// second, a child of the supervisor's, in the cgroup of v2, which becomes the
// user and runs the program. Only the second can be seen from the container. It
// holds no descriptor but the process's own and the pipe for an error, and the
// number under which it is known comes by memory it does not have.
package execinit

/*
#cgo CFLAGS: -Wall -Wextra
extern void nodeagent_execinit(int argc, char **argv);
static void __attribute__((constructor)) nodeagent_execinit_constructor(int argc, char **argv) {
	nodeagent_execinit(argc, argv);
}
*/
import "C"

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/supervisor/server/pidfd"
)

// ErrKilled says that the first process was killed before it made the second,
// as with all that is in the container's cgroups.
var ErrKilled = errors.New("killed before it was in the container")

// name is what the constructor knows its call by.
const name = "exec-init"

// Start runs the program of a request with the given standard streams, nil for
// /dev/null, in the container whose first process target is a descriptor of.
// The process is the caller's child, to be reaped by the caller, and has been
// executed when the error is nil. An error of type *Error names the step that
// failed; then nothing is left. When ctx ends first, so does Start, as soon as
// the kernel lets the processes die; no thread waits for that.
func Start(ctx context.Context, target syscall.Conn, streams [3]*os.File, r *Request) (pid int, err error) {
	request, err := r.file()
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	defer request.Close()
	answerR, answerW, err := pipe()
	if err != nil {
		return 0, err
	}
	defer answerR.Close()
	first, err := startFirst(target, []*os.File{streams[0], streams[1], streams[2], answerW, request}, r.Unified)
	answerW.Close()
	if err != nil {
		return 0, err
	}
	// Not before ctx's end is nobody there who could write to the pipe, unless
	// both have ended or the program runs.
	stop := context.AfterFunc(ctx, func() { _ = answerR.SetReadDeadline(time.Now()) })
	defer stop()
	err = readAnswer(ctx, answerR)
	if err != nil {
		_ = unix.Kill(first, unix.SIGKILL)
	}
	reap(first)
	pid, perr := toldPID(request)
	switch {
	case err == nil && perr != nil:
		err = perr
	case err == nil && pid == 0:
		err = cmp.Or(ctx.Err(), ErrKilled)
	}
	var failed *Error
	if errors.As(err, &failed) {
		failed.Program, failed.Dir = r.Args[0], r.Dir
	}
	if err != nil && pid > 0 {
		_ = unix.Kill(pid, unix.SIGKILL)
		reap(pid)
	}
	return pid, err
}

// pipe is os.Pipe, but that the end for writing is one for another program.
func pipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "answer"), os.NewFile(uintptr(fds[1]), "answer"), nil
}

// startFirst starts the first process, with these files as its descriptors,
// and behind them target and unified. It is none of the container's yet: what
// holds that up does not hold up the fork, and with it all others of the
// supervisor.
func startFirst(target syscall.Conn, files []*os.File, unified *os.File) (pid int, err error) {
	null := -1
	defer func() {
		if null >= 0 {
			unix.Close(null)
		}
	}()
	attr := &syscall.ProcAttr{Dir: "/", Env: []string{}}
	for _, f := range files {
		if f == nil && null < 0 {
			if null, err = unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
				return 0, fmt.Errorf("open %s: %w", os.DevNull, err)
			}
		}
		if f == nil {
			attr.Files = append(attr.Files, uintptr(null))
			continue
		}
		attr.Files = append(attr.Files, f.Fd())
	}
	raw, err := target.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) {
		attr.Files = append(attr.Files, fd)
		if unified != nil {
			attr.Files = append(attr.Files, unified.Fd())
		}
		pid, _, err = syscall.StartProcess("/proc/self/exe", []string{name}, attr)
	})
	if err := cmp.Or(cerr, err); err != nil {
		return 0, fmt.Errorf("start %s: %w", name, err)
	}
	return pid, nil
}

// toldPID is the number of the second process; zero when there is none.
func toldPID(request *os.File) (int, error) {
	var told [4]byte
	if _, err := request.ReadAt(told[:], 0); err != nil {
		return 0, err
	}
	return int(binary.NativeEndian.Uint32(told[:])), nil
}

// readAnswer waits until the program was executed, which closes the pipe, or
// something failed. The container may have got hold of the pipe's other end,
// so nothing but a step's number is taken from it.
func readAnswer(ctx context.Context, answer *os.File) error {
	var said [8]byte
	switch _, err := io.ReadFull(answer, said[:]); {
	case errors.Is(err, io.EOF):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	}
	return &Error{
		Step: Step(binary.NativeEndian.Uint32(said[:4])),
		Err:  syscall.Errno(binary.NativeEndian.Uint32(said[4:])),
	}
}

// reap waits for a child that has ended or is about to. One that the kernel
// does not let die, since it is frozen, is waited for without a thread.
func reap(pid int) {
	for {
		ended, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || ended != 0 {
			return
		}
		break
	}
	proc, err := pidfd.Open(pid)
	if err != nil {
		return
	}
	defer proc.Close()
	_, _ = proc.Wait()
}
