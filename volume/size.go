package volume

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// sizer adds up the blocks of a tree that containers may change meanwhile.
type sizer struct {
	ctx context.Context
	// seen are files that were counted: those with several names count once.
	seen  map[inode]bool
	total int64
}

// treeSize adds up what is in a folder, in bytes. What goes away meanwhile, and
// what no path reaches, is left out.
func treeSize(ctx context.Context, root string) (int64, error) {
	f, err := os.Open(root)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s := &sizer{ctx: ctx, seen: map[inode]bool{}}
	err = s.folder(f, 0)
	return s.total, err
}

// folder counts what is in a folder.
func (s *sizer) folder(f *os.File, depth int) error {
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			if err := s.entry(f, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *sizer) entry(f *os.File, name string, depth int) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return nil // gone
	}
	folder := st.Mode&unix.S_IFMT == unix.S_IFDIR
	key := inode{uint64(st.Dev), st.Ino}
	if !s.seen[key] {
		s.total += st.Blocks * 512
	}
	if !folder && st.Nlink > 1 {
		s.seen[key] = true
	}
	if !folder || depth >= maxDepth {
		return nil
	}
	below, err := openAt(f, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // gone, or another one
	}
	if err != nil {
		return err
	}
	defer below.Close()
	return s.folder(below, depth+1)
}
