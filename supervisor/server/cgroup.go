package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// killTimeout bounds the killing of a container's processes when the request
// has no deadline of its own.
const killTimeout = 10 * time.Second

// procsOf returns the processes of a container, those in groups below its own
// too. A cgroup that is gone has none.
func procsOf(paths map[string]string) ([]int, error) {
	// On a hybrid host the one of v2 comes last: not every exec is in it.
	for _, controller := range []string{"devices", "memory", "name=systemd", "pids", "freezer", ""} {
		path := paths[controller]
		if path == "" {
			continue
		}
		pids, err := cgroups.GetAllPids(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil, nil
		}
		// Zero is a process that is not to be seen from here, as one that is
		// just being reaped; to kill(2) it means the caller's own group.
		return slices.DeleteFunc(pids, func(pid int) bool { return pid <= 0 }), err
	}
	return nil, nil
}

// killCgroups kills every process of a container and returns once none is
// left, or with ctx's end.
func killCgroups(ctx context.Context, paths map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := procsOf(paths)
		if err != nil {
			return fmt.Errorf("list processes: %w", err)
		}
		if len(pids) == 0 {
			return nil
		}
		if !killUnified(paths) {
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		thaw(paths)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d processes survive SIGKILL: %w", len(pids), ctx.Err())
		}
	}
}

// killUnified uses cgroup.kill (Linux 5.14), which leaves no race with forks,
// where v2 has everybody.
func killUnified(paths map[string]string) bool {
	path := paths[""]
	return path != "" && len(paths) == 1 && os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0) == nil
}

// thaw lets killed processes of a frozen cgroup run to their end.
func thaw(paths map[string]string) {
	if path := paths["freezer"]; path != "" {
		_ = os.WriteFile(filepath.Join(path, "freezer.state"), []byte("THAWED"), 0)
	}
	if path := paths[""]; path != "" {
		_ = os.WriteFile(filepath.Join(path, "cgroup.freeze"), []byte("0"), 0)
	}
}
