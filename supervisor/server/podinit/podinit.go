// Package podinit is the first process of a PID namespace that the containers
// of a pod share. It is this program run anew, but turned aside by a C
// constructor before the Go runtime starts, so that it costs a few pages: it
// joins the pod's namespaces, makes the PID namespace, and its child, process
// 1 there, does nothing but wait for SIGTERM. The kernel reaps for it, since
// it ignores SIGCHLD.
package podinit

/*
#cgo CFLAGS: -Wall
extern void nodeagent_podinit(void);
static void __attribute__((constructor)) nodeagent_podinit_constructor(void) {
	nodeagent_podinit();
}
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// marker is the environment variable the constructor looks for; its value is
// the number of namespaces, whose descriptors follow the two pipes.
const marker = "_NODEAGENT_PODINIT"

// firstNamespace is the descriptor of the first namespace in the child: after
// standard streams, the go pipe (3) and the answer pipe (4).
const firstNamespace = 5

// startTimeout bounds the start of a pod's first process.
const startTimeout = 10 * time.Second

// Start runs a first process in a new PID namespace, below the namespaces at
// paths. place is called with the process ID of its ancestor before anything
// is made, to put it into a cgroup; nil places nothing. The returned process
// is the caller's child, to be reaped by the caller.
func Start(ctx context.Context, paths []string, place func(pid int) error) (pid int, err error) {
	// A caller that goes away must not end the start half-way: the process
	// would be there and its ID known to nobody.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	goR, goW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer goR.Close()
	defer goW.Close()
	answerR, answerW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer answerR.Close()
	defer answerW.Close()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{"pod-init"}
	cmd.Env = []string{marker + "=" + strconv.Itoa(len(paths))}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{goR, answerW}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return 0, fmt.Errorf("open namespace: %w", err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	goR.Close()
	answerW.Close()
	if place != nil {
		if err := place(cmd.Process.Pid); err != nil {
			goW.Close()
			cmd.Wait()
			return 0, err
		}
	}
	if _, err := goW.Write([]byte{'g'}); err != nil {
		cmd.Wait()
		return 0, fmt.Errorf("release pod init: %w", err)
	}
	answer, rerr := io.ReadAll(io.LimitReader(answerR, 256))
	pid, perr := strconv.Atoi(strings.TrimSpace(string(answer)))
	if err := cmd.Wait(); err != nil && perr != nil {
		return 0, fmt.Errorf("pod init: %s: %w", strings.TrimSpace(string(answer)), err)
	}
	if perr != nil {
		return 0, errors.Join(perr, rerr)
	}
	return pid, nil
}
