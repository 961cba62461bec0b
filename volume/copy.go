package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/filetree"
)

// maxDepth is how deep folders are copied; no path can be deeper.
const maxDepth = 2048

// copyChunk is how much of a file is copied, in bytes, between two looks at
// whether anybody still wants it.
const copyChunk = 64 << 20

// errTooDeep is a tree that no path reaches the end of.
var errTooDeep = errors.New("folders are nested too deep")

// copier copies one tree. A container may change both trees meanwhile: what is
// read and what is made is opened once, below the folder it is in, and then used
// by its descriptor. Nothing is followed in either.
type copier struct {
	ctx context.Context
	// root is the folder that is copied to.
	root *os.File
	// links are the first copies of files with several names, as paths below root.
	links map[inode]string
	// translate gives files other owners; nil keeps them.
	translate func(uid, gid uint32) (int, int)
}

func newCopier(ctx context.Context, translate func(uid, gid uint32) (int, int)) *copier {
	return &copier{ctx: ctx, links: map[inode]string{}, translate: translate}
}

type inode struct{ dev, ino uint64 }

// tree copies what is in a folder, and its attributes, into the folder at target,
// which is ours.
func (c *copier) tree(from *os.File, target string) (err error) {
	if c.root, err = os.Open(target); err != nil {
		return err
	}
	defer c.root.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	if err := c.folder(from, c.root, "", 0); err != nil {
		return err
	}
	return c.attributes(from, c.root, &st)
}

// folder copies the entries of a folder to one at path below the root.
func (c *copier) folder(from, to *os.File, path string, depth int) error {
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
		if err := c.entry(from, to, filepath.Join(path, name), depth); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// entry copies one entry of a folder with its attributes.
func (c *copier) entry(from, to *os.File, path string, depth int) error {
	name := filepath.Base(path)
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	key := inode{uint64(st.Dev), st.Ino}
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := c.links[key]; ok {
			return c.link(first, to, name)
		}
		c.links[key] = path
	}
	switch kind {
	case unix.S_IFDIR, unix.S_IFREG:
		return c.opened(from, to, path, depth)
	case unix.S_IFLNK:
		target, err := readlinkAt(from, name)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, int(to.Fd()), name); err != nil {
			return err
		}
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO:
		if err := unix.Mknodat(int(to.Fd()), name, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
	default:
		return nil // a socket means nothing without who listens
	}
	made, err := openAt(to, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer made.Close()
	return c.owner(made, &st)
}

// link makes another name of what was copied before.
func (c *copier) link(first string, to *os.File, name string) error {
	made, err := filetree.Open(c.root, first, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer made.Close()
	return unix.Linkat(unix.AT_FDCWD, self(made), int(to.Fd()), name, unix.AT_SYMLINK_FOLLOW)
}

// opened copies a folder or a file.
func (c *copier) opened(from, to *os.File, path string, depth int) error {
	name := filepath.Base(path)
	in, err := openAt(from, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer in.Close()
	// It may be another one by now.
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
			return err
		}
		out, err := openAt(to, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer out.Close()
		if err := c.folder(in, out, path, depth+1); err != nil {
			return err
		}
		return c.attributes(in, out, &st)
	case unix.S_IFREG:
		out, err := openAt(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
		if err != nil {
			return err
		}
		defer out.Close()
		if err := c.content(out, in); err != nil {
			return err
		}
		return c.attributes(in, out, &st)
	}
	return nil
}

// content copies what is in a file.
func (c *copier) content(out, in *os.File) error {
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		_, err := io.CopyN(out, in, copyChunk)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// attributes copies owner, mode, times and extended attributes.
func (c *copier) attributes(from, to *os.File, st *unix.Stat_t) error {
	if err := c.owner(to, st); err != nil {
		return err
	}
	return copyXattrs(from, to)
}

// owner copies owner, mode and times. The mode comes after the owner, whose
// change clears bits.
func (c *copier) owner(to *os.File, st *unix.Stat_t) error {
	uid, gid := int(st.Uid), int(st.Gid)
	if c.translate != nil {
		uid, gid = c.translate(st.Uid, st.Gid)
	}
	if err := unix.Fchownat(int(to.Fd()), "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(unix.AT_FDCWD, self(to), st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, self(to), []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// copyXattrs copies extended attributes but those of overlayfs. A filesystem
// without them has none to copy.
func copyXattrs(from, to *os.File) error {
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
			err = unix.Fsetxattr(int(to.Fd()), name, value[:size], 0)
		}
		if ignoreUnsupported(err) != nil {
			return fmt.Errorf("extended attribute %q: %w", name, err)
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

// openAt opens an entry of a folder, and follows nothing.
func openAt(folder *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(folder.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// self is a path of what is open: no path in a tree, which could be changed.
func self(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// readlinkAt reads a link in a folder.
func readlinkAt(folder *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(folder.Fd()), name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
