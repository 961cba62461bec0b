package imageservice

import (
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
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.Root, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: s.cfg.Root, Err: err}
	}
	need, free := blobs+layers+keptFree, int64(st.Bavail)*st.Bsize
	if need > free {
		return fmt.Errorf("it needs %s at least, and %s are free on the filesystem of %s: %w",
			units.HumanSize(float64(need)), units.HumanSize(float64(free)), s.cfg.Root, errdefs.ErrResourceExhausted)
	}
	if st.Files > 0 && st.Ffree == 0 {
		return fmt.Errorf("the filesystem of %s has no room for more files: %w", s.cfg.Root, errdefs.ErrResourceExhausted)
	}
	return nil
}
