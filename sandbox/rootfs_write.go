package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nodeagent/nodeagent/sandbox/idmap"
)

// ErrRunning is that a container runs, and its files are seen through its
// process.
var ErrRunning = errors.New("the container runs")

// ChangeRootfs calls change with the root folder of the root filesystem of a
// container that does not run, and keeps it from being started, stopped and
// removed meanwhile. A running one is ErrRunning. What is not mounted is
// mounted for the call alone. Paths in it are resolved by openat2 only, since
// what the container left there is foreign.
func (m *Manager) ChangeRootfs(ctx context.Context, containerID string, change func(root *os.File) error) error {
	c, err := m.findContainer(containerID)
	if err != nil {
		return fmt.Errorf("open root filesystem: %w", err)
	}
	id := c.get().ID
	if err := acquire(ctx, c.busy); err != nil {
		return fmt.Errorf("open root filesystem of container %s: %w", id, err)
	}
	defer c.busy.release()
	if c.get().State.alive() {
		return ErrRunning
	}
	root, err := m.openMounted(id)
	if root == nil && err == nil {
		root, err = m.openWritable(ctx, c.get())
	}
	if err != nil {
		return fmt.Errorf("open root filesystem of container %s: %w", id, err)
	}
	defer root.Close()
	return change(root)
}

// openWritable is openUnmounted for who writes. Nothing else mounts the
// container's layer while its gate is held.
func (m *Manager) openWritable(ctx context.Context, c *containerState) (*os.File, error) {
	p, err := m.findPod(c.PodID)
	if err != nil {
		return nil, err
	}
	return m.openAt(c, func(point string) error {
		if c.Folder != "" {
			return m.bindFolder(c, p.get(), idmap.BindRequest{Target: point, Below: true})
		}
		mounts, err := m.deps.Snapshots.Mounts(ctx, c.SnapshotKey)
		if err != nil {
			return err
		}
		return m.mountMapped(ctx, mounts, point, m.imagesDir(c.ID), p.get())
	})
}
