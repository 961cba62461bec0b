package snapshotter

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// diskUsage sums what is below a directory, and the directory itself: blocks
// as allocated, hard links once. A container may be writing there meanwhile;
// it cannot lead the walk outside.
func diskUsage(ctx context.Context, dir string) (snapshots.Usage, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return snapshots.Usage{}, err
	}
	defer root.Close()
	var usage snapshots.Usage
	seen := map[uint64]bool{}
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err != nil {
			return ignoreGone(err)
		}
		fi, err := d.Info()
		if err != nil {
			return ignoreGone(err)
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if !d.IsDir() && st.Nlink > 1 {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		usage.Inodes++
		usage.Size += st.Blocks * 512
		return nil
	})
	return usage, err
}

// ignoreGone forgives what was deleted during the walk.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
