package volume

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDepth is how deep folders are copied; no path can be deeper.
const maxDepth = 2048

// errTooDeep is a tree that no path reaches the end of.
var errTooDeep = errors.New("folders are nested too deep")

// copier copies one tree.
type copier struct {
	ctx context.Context
	// links are the first copies of files with several names.
	links map[inode]string
	// translate gives files other owners; nil keeps them.
	translate func(uid, gid uint32) (int, int)
}

func newCopier(ctx context.Context, translate func(uid, gid uint32) (int, int)) *copier {
	return &copier{ctx: ctx, links: map[inode]string{}, translate: translate}
}

type inode struct{ dev, ino uint64 }

// tree copies what is in a folder, and its attributes, into target, which is a
// folder of ours. Nothing is followed in the source.
func (c *copier) tree(from *os.File, target string) error {
	if err := c.folder(from, target, 0); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	return c.attributes(from, target, &st)
}

// folder copies the entries of a folder.
func (c *copier) folder(from *os.File, target string, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(from, name, filepath.Join(target, name), depth); err != nil {
			return err
		}
	}
	return nil
}

// entry copies one entry of a folder with its attributes.
func (c *copier) entry(parent *os.File, name, target string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(parent.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	key := inode{uint64(st.Dev), st.Ino}
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := c.links[key]; ok {
			return os.Link(first, target)
		}
		c.links[key] = target
	}
	switch kind {
	case unix.S_IFDIR, unix.S_IFREG:
		return c.opened(parent, name, target, &st, depth)
	case unix.S_IFLNK:
		to, err := readlinkAt(parent, name)
		if err != nil {
			return err
		}
		if err := os.Symlink(to, target); err != nil {
			return err
		}
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO:
		if err := unix.Mknod(target, st.Mode, int(st.Rdev)); err != nil {
			return &fs.PathError{Op: "mknod", Path: target, Err: err}
		}
	default:
		return nil // a socket means nothing without who listens
	}
	return c.owner(target, &st)
}

// opened copies a folder or a file.
func (c *copier) opened(parent *os.File, name, target string, st *unix.Stat_t, depth int) error {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Openat(int(parent.Fd()), name, flags, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	in := os.NewFile(uintptr(fd), name)
	defer in.Close()
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := os.Mkdir(target, 0o700); err != nil {
			return err
		}
		if err := c.folder(in, target, depth+1); err != nil {
			return err
		}
		return c.attributes(in, target, st)
	}
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return c.attributes(in, target, st)
}

// attributes copies owner, mode, extended attributes and times.
func (c *copier) attributes(from *os.File, target string, st *unix.Stat_t) error {
	if err := c.owner(target, st); err != nil {
		return err
	}
	return copyXattrs(from, target)
}

// owner copies owner, mode and times. The mode comes after the owner, whose
// change clears bits.
func (c *copier) owner(target string, st *unix.Stat_t) error {
	uid, gid := int(st.Uid), int(st.Gid)
	if c.translate != nil {
		uid, gid = c.translate(st.Uid, st.Gid)
	}
	if err := os.Lchown(target, uid, gid); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(target, st.Mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: target, Err: err}
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, target, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// copyXattrs copies extended attributes but those of overlayfs. A filesystem
// without them has none to copy.
func copyXattrs(from *os.File, target string) error {
	names := make([]byte, 64<<10)
	n, err := unix.Flistxattr(int(from.Fd()), names)
	if err != nil || n == 0 {
		return ignoreUnsupported(err)
	}
	value := make([]byte, 64<<10)
	for _, name := range strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		size, err := unix.Fgetxattr(int(from.Fd()), name, value)
		if err == nil {
			err = unix.Lsetxattr(target, name, value[:size], 0)
		}
		if ignoreUnsupported(err) != nil {
			return &fs.PathError{Op: "setxattr " + name, Path: target, Err: err}
		}
	}
	return nil
}

func ignoreUnsupported(err error) error {
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

// readlinkAt reads a link in a folder.
func readlinkAt(parent *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(parent.Fd()), name, buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(buf[:n]), nil
}

// treeSize adds up the blocks of a tree, those of a file with several names
// once.
func treeSize(ctx context.Context, root string) (total int64, err error) {
	seen := map[inode]bool{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it is in use
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || seen[inode{uint64(st.Dev), st.Ino}] {
			return nil
		}
		seen[inode{uint64(st.Dev), st.Ino}] = true
		if path != root {
			total += st.Blocks * 512
		}
		return nil
	})
	return total, err
}
