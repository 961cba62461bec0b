// Package execinit runs a further process in a running container without
// libcontainer's init: that is a Go program with a configuration in JSON, and
// costs several milliseconds of processor time, where probes come by the
// hundred a second. This one is the supervisor's program run anew and turned
// aside by a C constructor before the Go runtime starts. It does what
// libcontainer's does for an exec, in the same order, for what most execs are;
// others (see package server) are left to libcontainer.
//
// A first process joins the cgroups on the host, then the namespaces, all of
// them by one descriptor of the container's first process, and makes the
// second, a child of the supervisor's, which becomes the user and runs the
// program. Only the second can be seen from the container. It holds no
// descriptor but the process's own and the pipe for an error, and the number
// under which it is known comes by memory it does not have.
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
// the kernel lets the processes die.
func Start(ctx context.Context, target *os.File, streams [3]*os.File, r *Request) (pid int, err error) {
	request, err := r.file()
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	defer request.Close()
	answerR, answerW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer answerR.Close()
	first, err := startFirst(target, streams, r, answerW, request)
	answerW.Close()
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = first.Kill()
		_ = answerR.SetReadDeadline(time.Now())
	})
	defer stop()
	if _, err := first.Wait(); err != nil {
		return 0, err
	}
	pid, err = toldPID(request)
	if err == nil {
		err = readAnswer(ctx, answerR)
	}
	if err == nil && pid == 0 {
		err = cmp.Or(ctx.Err(), ErrKilled)
	}
	var failed *Error
	if errors.As(err, &failed) {
		failed.Program, failed.Dir = r.Args[0], r.Dir
	}
	if err != nil && pid > 0 {
		reap(pid)
	}
	return pid, err
}

// startFirst starts the first process.
func startFirst(target *os.File, streams [3]*os.File, r *Request, answer, request *os.File) (*os.Process, error) {
	var null *os.File
	files := append(streams[:], answer, request, target)
	for i, f := range files {
		if f != nil {
			continue
		}
		if null == nil {
			var err error
			if null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
				return nil, err
			}
			defer null.Close()
		}
		files[i] = null
	}
	attr := &os.ProcAttr{Dir: "/", Env: []string{}, Files: files}
	if r.Unified != nil {
		attr.Sys = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(r.Unified.Fd())}
	}
	return os.StartProcess("/proc/self/exe", []string{name}, attr)
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

// reap ends a process that was not to be, or waits for the one that gave up.
func reap(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}
