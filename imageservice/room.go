package imageservice

import (
	"cmp"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// keptFree is what a pull leaves free for others, in bytes: an agent on a full
// disk cannot write a record.
const keptFree = 16 << 20

// checkRoom refuses an image whose layers cannot fit, before anything is
// transferred. What they take unpacked is not known, but it is not less than
// what they take compressed, which is kept as well.
func (s *Store) checkRoom(in Layers, f *found) error {
	var blobs, layers int64
	for i, desc := range f.layers {
		if _, ok := s.content.Size(desc.Digest); !ok {
			blobs += max(desc.Size, 0)
		}
		if _, err := in.Stat(s.ctx, f.chainIDs[i].String()); err != nil {
			layers += max(desc.Size, 0)
		}
	}
	if layers == 0 || isSerial(in) {
		return nil
	}
	one, err := s.oneFilesystem(in)
	switch {
	case err != nil:
		return err
	case one:
		return room(s.cfg.Root, blobs+layers)
	}
	return cmp.Or(room(s.cfg.Root, blobs), room(in.Root(), layers))
}

// room fails when a filesystem has no room for so many bytes.
func room(dir string, bytes int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	need, free := bytes+keptFree, int64(st.Bavail)*st.Bsize
	if need > free {
		return fmt.Errorf("it needs %s at least, and %s are free on the filesystem of %s: %w",
			units.HumanSize(float64(need)), units.HumanSize(float64(free)), dir, errdefs.ErrResourceExhausted)
	}
	if st.Files > 0 && st.Ffree == 0 {
		return fmt.Errorf("the filesystem of %s has no room for more files: %w", dir, errdefs.ErrResourceExhausted)
	}
	return nil
}

// oneFilesystem tells whether blobs and layers are on the same.
func (s *Store) oneFilesystem(in Layers) (bool, error) {
	var st [2]unix.Stat_t
	for i, path := range []string{s.cfg.Root, in.Root()} {
		if err := unix.Stat(path, &st[i]); err != nil {
			return false, &os.PathError{Op: "stat", Path: path, Err: err}
		}
	}
	return st[0].Dev == st[1].Dev, nil
}
