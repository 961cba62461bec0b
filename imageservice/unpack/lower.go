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

// lower is something found in a layer below.
type lower struct {
	// dir is the directory it is in, owned by this.
	dir  int
	name string
	st   unix.Stat_t
}

func (f *lower) close() { unix.Close(f.dir) }

// below are the layers below one.
type below struct {
	// get is Options.Lowers.
	get func(context.Context) ([]string, error)
	// dirs are open once they were needed, the nearest first.
	dirs   []int
	waited bool
}

func (b *below) close() {
	for _, fd := range b.dirs {
		unix.Close(fd)
	}
}

// wait opens the layers below, once.
func (b *below) wait(ctx context.Context) error {
	if b.waited || b.get == nil {
		return nil
	}
	dirs, err := b.get(ctx)
	if err != nil {
		return fmt.Errorf("wait for the layers below: %w", err)
	}
	for _, dir := range dirs {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open layer", Path: dir, Err: err}
		}
		b.dirs = append(b.dirs, fd)
	}
	b.waited = true
	return nil
}

// lookup finds a path without links in the layers below, as overlayfs would.
// Nil means that it is not there.
func (b *below) lookup(ctx context.Context, path []string) (*lower, error) {
	if err := b.wait(ctx); err != nil {
		return nil, err
	}
	for _, root := range b.dirs {
		found, last, err := lookupIn(root, path)
		if err != nil || found != nil || last {
			return found, err
		}
	}
	return nil, nil
}

// lookupIn looks in one layer. last says that layers below it do not matter.
// An image of many layers has each look for the same in all of them, so that
// each system call counts.
func lookupIn(root int, path []string) (found *lower, last bool, err error) {
	dir := root
	defer func() {
		if found == nil && dir != root {
			unix.Close(dir)
		}
	}()
	for _, name := range path[:len(path)-1] {
		next, err := openDirAt(dir, name)
		switch {
		case err == unix.ENOENT:
			return nil, last || isOpaque(dir), nil
		case err == unix.ENOTDIR || err == unix.ELOOP:
			// A whiteout, a file, a link.
			return nil, true, nil
		case err != nil:
			return nil, false, err
		}
		last = last || isOpaque(dir)
		if dir != root {
			unix.Close(dir)
		}
		dir = next
	}
	f := &lower{dir: dir, name: path[len(path)-1]}
	err = unix.Fstatat(dir, f.name, &f.st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT:
		return nil, last || isOpaque(dir), nil
	case err != nil:
		return nil, false, err
	case isWhiteout(&f.st):
		return nil, true, nil
	}
	if dir == root {
		if f.dir, err = dup(root); err != nil {
			return nil, false, err
		}
	}
	return f, true, nil
}

// copyAttributes gives an open file or directory owner, mode and xattrs of
// what was found below.
func (f *lower) copyAttributes(fd int) error {
	if err := unix.Fchown(fd, int(f.st.Uid), int(f.st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, f.st.Mode&0o7777); err != nil {
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
	found, err := l.lookupName(ctx, dir, resolved, base)
	if err != nil {
		return err
	}
	if found == nil {
		return fmt.Errorf("nothing is there: %w", errdefs.ErrInvalidArgument)
	}
	defer found.close()
	switch found.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return l.copyUpFile(dir.fd, base, resolved, found)
	case unix.S_IFLNK:
		link, err := readlinkat(found.dir, base)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(link, dir.fd, base); err != nil {
			return err
		}
		return l.copyUpSpecial(dir.fd, base, found)
	case unix.S_IFDIR:
		return fmt.Errorf("it is a directory: %w", errdefs.ErrInvalidArgument)
	}
	if err := unix.Mknodat(dir.fd, base, found.st.Mode, int(found.st.Rdev)); err != nil {
		return err
	}
	return l.copyUpSpecial(dir.fd, base, found)
}

// lookupName finds a name of a directory of this layer in those below.
func (l *layer) lookupName(ctx context.Context, dir step, resolved, base string) (*lower, error) {
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
func (l *layer) copyUpSpecial(dir int, base string, f *lower) error {
	mtime := time.Unix(f.st.Mtim.Unix())
	return l.special(dir, base, attributes{
		uid: int(f.st.Uid), gid: int(f.st.Gid), mode: f.st.Mode & 0o7777, mtime: mtime,
		link: f.st.Mode&unix.S_IFMT == unix.S_IFLNK,
	})
}

func (l *layer) copyUpFile(dir int, base, resolved string, f *lower) error {
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
	n, err := io.Copy(io.MultiWriter(dst, h), src)
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
