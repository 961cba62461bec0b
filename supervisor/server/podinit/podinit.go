// Package podinit is the first process of a PID namespace that the containers
// of a pod share. It is this program run anew, but turned aside by a C
// constructor before the Go runtime starts, so that it costs a few pages: it
// joins the pod's namespaces, makes the PID namespace, and its child, process
// 1 there, does nothing but wait for SIGTERM. The kernel reaps for it, since
// it ignores SIGCHLD.
//
// Containers see it, and may be allowed to look into it or to make it run code
// of theirs (CAP_SYS_PTRACE). So it has nothing of the host's but its user: an
// empty root, no capability, and no system calls but those it makes.
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
	"syscall"
	"time"
)

// marker is the environment variable the constructor looks for; its value is
// the numbers of files of cgroups, of namespaces and of empty roots (0 or 1),
// whose descriptors follow the answer pipe (3).
const marker = "_NODEAGENT_PODINIT"

// startTimeout bounds the start of a pod's first process.
const startTimeout = 10 * time.Second

// Cgroup is where a first process is put before it makes anything. The files
// stay the caller's.
type Cgroup struct {
	// Unified is a folder of cgroup v2, which the process is born in; nil for
	// none.
	Unified *os.File
	// Tasks are files named so of hierarchies of cgroup v1, open for writing.
	Tasks []*os.File
}

// Start runs a first process in a new PID namespace, below the namespaces at
// paths, in a cgroup. Its root is that of the mount namespace empty, see
// EmptyRoot, or a new one when that is nil. The returned process is the caller's
// child, to be reaped by the caller.
func Start(ctx context.Context, paths []string, cgroup Cgroup, empty *os.File) (pid int, err error) {
	// A caller that goes away must not end the start half-way: the process
	// would be there and its ID known to nobody.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	answerR, answerW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer answerR.Close()
	defer answerW.Close()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{"pod-init"}
	roots := 0
	if empty != nil {
		roots = 1
	}
	cmd.Env = []string{fmt.Sprintf("%s=%d %d %d", marker, len(cgroup.Tasks), len(paths), roots)}
	cmd.Dir = "/"
	cmd.ExtraFiles = append([]*os.File{answerW}, cgroup.Tasks...)
	if cgroup.Unified != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Unified.Fd())}
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return 0, fmt.Errorf("open namespace: %w", err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	if empty != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, empty)
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	answerW.Close()
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

// EmptyRoot is the mount namespace of a first process, for others to share: to
// make one takes a millisecond and more, as the host's mounts are copied for it.
// The caller closes it.
func EmptyRoot(pid int) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
}
