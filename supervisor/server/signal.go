package server

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
)

// maxSignal is the highest signal number of Linux.
const maxSignal = 64

// Signal sends a signal to a container's init, or to every process of it.
// SIGKILL to an init whose end would leave processes behind goes to all.
func (s *Server) Signal(ctx context.Context, req *v1.SignalRequest) (*v1.Empty, error) {
	if req.Signal < 0 || req.Signal > maxSignal {
		return nil, fmt.Errorf("signal container %s: signal %d: %w", req.Id, req.Signal, errdefs.ErrInvalidArgument)
	}
	c, err := s.findRunning(req.Id)
	if err != nil {
		return nil, fmt.Errorf("signal %w", err)
	}
	sig := syscall.Signal(req.Signal)
	c.mu.Lock()
	rec, proc := c.record, c.proc
	c.mu.Unlock()
	if proc == nil {
		return nil, fmt.Errorf("signal %w", c.notRunning())
	}
	if sig == unix.SIGKILL && (req.All || rec.SharedPID) {
		err = killCgroups(ctx, rec.Cgroups)
	} else if req.All {
		err = signalAll(rec.Cgroups, sig)
	} else {
		err = proc.Signal(sig)
		if sig == unix.SIGKILL {
			// A frozen process does not even die.
			thaw(rec.Cgroups)
		}
	}
	if err == nil {
		return &v1.Empty{}, nil
	}
	// It may have ended meanwhile, and its descriptor with it.
	if c.runs() != nil || errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("signal %w", c.notRunning())
	}
	return nil, fmt.Errorf("signal container %s: %w", c.id, err)
}

func signalAll(paths map[string]string, sig syscall.Signal) error {
	pids, err := procsOf(paths)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if kerr := unix.Kill(pid, sig); kerr != nil && kerr != unix.ESRCH {
			err = errors.Join(err, fmt.Errorf("process %d: %w", pid, kerr))
		}
	}
	return err
}
