package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Hold makes a cgroup where it is missing and keeps it for one holder at a
// time, until release is called or the process ends: what lies below it is
// removed by whoever holds it. Another holder, of this process or another, is
// errdefs.ErrAlreadyExists. release removes the cgroup where it is empty.
func (m *Manager) Hold(ctx context.Context, path string) (release func() error, err error) {
	p, err := m.clean(path)
	if err != nil {
		return nil, err
	}
	if err := m.Create(ctx, path, nil); err != nil {
		return nil, err
	}
	// One hierarchy is enough to hold it by, as all have the same cgroups.
	f, err := os.Open(m.hierarchies[0].dir(p))
	if err != nil {
		return nil, fmt.Errorf("hold cgroup %s: %w", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errdefs.ErrAlreadyExists
		}
		return nil, fmt.Errorf("hold cgroup %s: %w", path, err)
	}
	return func() error {
		if m.systemd != nil && strings.HasSuffix(p, ".slice") {
			if pids, err := m.allProcs(p); err == nil && len(pids) == 0 && len(m.Children(path)) == 0 {
				ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
				defer cancel()
				_ = m.systemd.remove(ctx, p)
			}
			return f.Close()
		}
		for _, h := range m.hierarchies {
			_ = unix.Rmdir(h.dir(p)) // somebody is in it, most often
		}
		return f.Close()
	}, nil
}
