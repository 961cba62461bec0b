package snapshotter

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"golang.org/x/sys/unix"
)

// TestSuite runs containerd's own tests of the interface, on layers that are
// directories and on images. The name it gives is one the suite knows:
// overlayfs cannot rename a directory of a lower layer.
func TestSuite(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for form, config := range map[string]func(root string) Config{
		"directories": func(root string) Config { return Config{Root: root} },
		"images":      func(root string) Config { return Config{Root: root, Mounts: root + "-mounts"} },
	} {
		t.Run(form, func(t *testing.T) {
			if form == "directories" {
				inMemory(t) // an image there would need a loop device
			}
			testsuite.SnapshotterSuite(t, "overlayfs", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
				config := config(root)
				o, err := New(config)
				if err != nil {
					return nil, nil, err
				}
				return o, func() error { return errors.Join(o.Close(), unmountAll(config.Mounts)) }, nil
			})
		})
	}
}

// inMemory has the temporary folders of a test in memory: each commit syncs the
// filesystem, which otherwise is everybody's.
func inMemory(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("TMPDIR", dir)
}

// unmountAll unmounts the images that snapshots still need, as a reboot does.
func unmountAll(dir string) error {
	names, err := mountsBelow(dir)
	for _, name := range names {
		err = errors.Join(err, Unmount(filepath.Join(dir, name)))
	}
	return err
}
