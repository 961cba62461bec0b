package unpack

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// copyAttributes gives an open file or directory owner, mode and xattrs of
// what was found below.
func (f *found) copyAttributes(fd int) error {
	if err := own(fd, int(f.st.Uid), int(f.st.Gid), f.st.Mode&0o7777); err != nil {
		return err
	}
	from, err := unix.Openat(f.dir, f.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return copyXattrs(from, fd)
}

// copyUp brings a file of a layer below into this one, so that it can get
// another link. dir is the directory in this layer with the same path.
func (l *layer) copyUp(ctx context.Context, rel string) error {
	dirPath, base := split(rel)
	dir, resolved, err := l.walk(ctx, dirPath)
	if err != nil {
		return err
	}
	defer unix.Close(dir.fd)
	f, err := l.lookupName(ctx, dir, resolved, base)
	if err != nil {
		return err
	}
	if f == nil {
		return fmt.Errorf("nothing is there: %w", errdefs.ErrInvalidArgument)
	}
	defer f.close()
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return l.copyUpFile(ctx, dir.fd, base, resolved, f)
	case unix.S_IFLNK:
		link, err := readlinkat(f.dir, base)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(link, dir.fd, base); err != nil {
			return err
		}
		return l.copyUpSpecial(dir.fd, base, f)
	case unix.S_IFDIR:
		return fmt.Errorf("it is a directory: %w", errdefs.ErrInvalidArgument)
	}
	if err := unix.Mknodat(dir.fd, base, f.st.Mode, int(f.st.Rdev)); err != nil {
		return err
	}
	return l.copyUpSpecial(dir.fd, base, f)
}

// lookupName finds a name of a directory of this layer in those below.
func (l *layer) lookupName(ctx context.Context, dir step, resolved, base string) (*found, error) {
	if !dir.below {
		return nil, nil
	}
	path := []string{base}
	if resolved != "" {
		path = append(splitAll(resolved), base)
	}
	return l.lookup(ctx, path)
}

// copyUpSpecial finishes what is not a regular file.
func (l *layer) copyUpSpecial(dir int, base string, f *found) error {
	mtime := time.Unix(f.st.Mtim.Unix())
	return l.special(dir, base, attributes{
		uid: int(f.st.Uid), gid: int(f.st.Gid), mode: f.st.Mode & 0o7777, mtime: mtime,
		link: f.st.Mode&unix.S_IFMT == unix.S_IFLNK,
	})
}

func (l *layer) copyUpFile(ctx context.Context, dir int, base, resolved string, f *found) error {
	from, err := unix.Openat(f.dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(from), base)
	defer src.Close()
	to, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(to), base)
	defer dst.Close()
	if l.size += f.st.Size; l.size > l.limits.Bytes {
		return fmt.Errorf("a layer of more than %d bytes: %w", l.limits.Bytes, errdefs.ErrInvalidArgument)
	}
	h := crc32.New(castagnoli)
	n, err := io.Copy(io.MultiWriter(dst, h), &rationed{ctx, src, &l.budget})
	if err != nil {
		return err
	}
	l.sums.add(path.Join(resolved, base), n, h.Sum32())
	if err := f.copyAttributes(to); err != nil {
		return err
	}
	if err := futimes(to, time.Unix(f.st.Mtim.Unix())); err != nil {
		return err
	}
	return l.tally(to)
}
