package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/failpoint"
)

const (
	// startTimeout bounds the start of a supervisor, which takes some
	// hundredths of a second; it includes adopting running containers.
	startTimeout = 60 * time.Second
	// lockPoll is how often the launch lock is tried while another agent
	// holds it.
	lockPoll = 5 * time.Millisecond
	// readyDescriptor is where the supervisor finds the pipe it reports
	// its readiness on: the first of exec.Cmd's ExtraFiles.
	readyDescriptor = 3
	// readyWord is what a supervisor that listens writes to that pipe;
	// anything else is why it does not.
	readyWord = "ready"
)

// Ensure connects to the node's supervisor, and starts one when none answers.
// Of several callers at once one starts it and the others get the same. The
// supervisor is no child of the caller: it lives in a session and a cgroup of
// its own and outlives it.
func Ensure(ctx context.Context, l Launch) (*Client, error) {
	if c, err := Dial(ctx, l.Socket); err == nil {
		return c, nil
	} else if !errdefs.IsUnavailable(err) {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, dir := range []string{l.State, filepath.Dir(l.Socket)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("start supervisor: %w", err)
		}
	}
	unlock, err := lockLaunch(ctx, l.Socket+".lock")
	if err != nil {
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	defer unlock()
	// Another caller may have started one while we waited for the lock.
	if c, err := Dial(ctx, l.Socket); err == nil {
		return c, nil
	}
	for _, path := range []string{l.Socket, DescriptorSocket(l.Socket)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("start supervisor: remove stale socket: %w", err)
		}
	}
	if err := launch(ctx, l); err != nil {
		return nil, fmt.Errorf("start supervisor %s: %w", l.Binary, err)
	}
	return Dial(ctx, l.Socket)
}

// lockLaunch takes the lock that the launching of a supervisor is done under.
// The kernel drops it with the process that holds it.
func lockLaunch(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		}
	}
}

// launch runs the binary, which starts the supervisor proper from a sealed
// copy of itself and ends; then it waits for the readiness pipe.
func launch(ctx context.Context, l Launch) error {
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer readyR.Close()
	defer readyW.Close()
	args := []string{
		"--socket", l.Socket,
		"--state", l.State,
		"--ready-fd", fmt.Sprint(readyDescriptor),
	}
	if l.CgroupParent != "" {
		args = append(args, "--cgroup-parent", l.CgroupParent)
	}
	if l.LogLevel != "" {
		args = append(args, "--log-level", l.LogLevel)
	}
	cmd := exec.CommandContext(ctx, l.Binary, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + cmp.Or(l.Path, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")}
	if points, ok := os.LookupEnv(failpoint.EnvVar); ok {
		cmd.Env = append(cmd.Env, failpoint.EnvVar+"="+points)
	}
	cmd.ExtraFiles = []*os.File{readyW}
	if l.LogFile != "" {
		log, err := os.OpenFile(l.LogFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	if err := cmd.Run(); err != nil {
		return errors.Join(err, awaitReady(ctx, readyR, readyW))
	}
	return awaitReady(ctx, readyR, readyW)
}

// awaitReady reads the pipe until the supervisor closed its end, which it does
// when it listens and when it dies.
func awaitReady(ctx context.Context, r, w *os.File) error {
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	return readyText(r, w)
}

// readyText closes our own write end and returns what the other end said, nil
// for the ready word.
func readyText(r, w *os.File) error {
	w.Close()
	said, err := io.ReadAll(io.LimitReader(r, 4096))
	text := strings.TrimSpace(string(said))
	switch {
	case text == readyWord:
		return nil
	case text != "":
		return errors.New(text)
	case err != nil:
		return fmt.Errorf("wait for readiness: %w: %w", err, errdefs.ErrUnavailable)
	}
	return fmt.Errorf("it ended before it was ready: %w", errdefs.ErrUnavailable)
}
