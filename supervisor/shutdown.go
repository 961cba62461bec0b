package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
)

// Shutdown ends a supervisor that holds no container and no pod's first
// process, and removes the cgroup it lived in; ErrFailedPrecondition means
// that it holds some. A nil error means that it has ended, and has no file open
// any more, or that none runs.
func (c *Client) Shutdown(ctx context.Context) error {
	process, err := c.process(ctx)
	if err != nil {
		return goneIsFine(err)
	}
	defer unix.Close(process)
	err = goneIsFine(c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.Shutdown(ctx, &v1.ShutdownRequest{})
		return err
	}))
	if err != nil {
		return err
	}
	return awaitEnd(ctx, process)
}

// goneIsFine makes nothing of an error that says that no supervisor runs: it
// may be gone before its answer is.
func goneIsFine(err error) error {
	if errdefs.IsUnavailable(err) {
		return nil
	}
	return err
}

// process returns a descriptor of the supervisor's process.
func (c *Client) process(ctx context.Context) (fd int, err error) {
	info, err := c.Info(ctx)
	if err != nil {
		return -1, err
	}
	if fd, err = unix.PidfdOpen(info.PID, 0); err != nil {
		return -1, fmt.Errorf("open process %d of the supervisor: %w: %w", info.PID, err, errdefs.ErrUnavailable)
	}
	// One that still answers is still that process.
	if again, err := c.Info(ctx); err != nil || again.PID != info.PID {
		unix.Close(fd)
		return -1, fmt.Errorf("process %d of the supervisor ended: %w", info.PID, errdefs.ErrUnavailable)
	}
	return fd, nil
}

// endPause is how long awaitEnd waits before it looks at its context.
const endPause = 100 * time.Millisecond

// awaitEnd waits for a process, all threads of it, by its descriptor.
func awaitEnd(ctx context.Context, fd int) error {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(endPause.Milliseconds()))
		if n > 0 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for the supervisor's end: %w", err)
		}
	}
	return fmt.Errorf("wait for the supervisor's end: %w", ctx.Err())
}
