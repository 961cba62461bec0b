package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// removeTimeout and killTimeout bound Remove and Kill where the
	// context does not.
	removeTimeout = 10 * time.Second
	killTimeout   = 30 * time.Second
	// pollInterval is how often a cgroup is looked at that is to become
	// empty; v1 tells nobody.
	pollInterval = 2 * time.Millisecond
)

// Remove removes a cgroup and all below it from every hierarchy. It kills
// nothing: it waits for processes that are about to be gone, and fails with
// errdefs.ErrFailedPrecondition when ctx, or 10 seconds, have passed. A nil
// error means that the cgroup does not exist.
func (m *Manager) Remove(ctx context.Context, path string) error {
	p, err := m.clean(path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	if m.systemd != nil && strings.HasSuffix(p, ".slice") {
		if err := m.systemd.remove(ctx, p); err != nil {
			return fmt.Errorf("remove slice %s: %w", path, err)
		}
	}
	var errs []error
	for _, h := range m.hierarchies {
		errs = append(errs, removeTree(ctx, h.dir(p)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", path, err)
	}
	return nil
}

// removeTree removes a cgroup and all below it.
func removeTree(ctx context.Context, dir string) error {
	err := rmdir(dir)
	if err == nil {
		return nil
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		below, readErr := children(dir)
		if readErr != nil {
			return readErr
		}
		for _, c := range below {
			if err := removeTree(ctx, c); err != nil {
				return err
			}
		}
		if err = rmdir(dir); err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		select {
		case <-ctx.Done():
			return busy(dir, err)
		case <-ticker.C:
		}
	}
}

// busy explains why a cgroup could not be removed.
func busy(dir string, err error) error {
	pids, _ := procsBelow(dir)
	return fmt.Errorf("%w: %d processes are left (%w)", err, len(pids), errdefs.ErrFailedPrecondition)
}

// rmdir removes one cgroup; nil when there is none.
func rmdir(dir string) error {
	for {
		err := unix.Rmdir(dir)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		}
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
}
