package erofs

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// WriteTree writes an image of a directory, which may be an upper directory of
// overlayfs: whiteouts and opaque directories stay what they are. The image is
// written to f, an empty file. Nobody may change the directory meanwhile; what
// is in it is not trusted.
func WriteTree(ctx context.Context, f *os.File, dir string) (*Sums, error) {
	root, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	c := &copier{ctx: ctx, w: NewWriter(f), seen: map[uint64]Entry{}}
	defer c.w.Close()
	top, err := c.dir(root, 0)
	if err != nil {
		return nil, err
	}
	return c.w.Finish(top)
}

// copier is one call of WriteTree.
type copier struct {
	ctx context.Context
	w   *Writer
	// seen are files of several names, by their inode.
	seen map[uint64]Entry
}

// maxDepth is how deep directories are looked into.
const maxDepth = 4096

func (c *copier) dir(d *os.File, depth int) (*Dir, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("directories are nested too deep: %w", errdefs.ErrInvalidArgument)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return nil, err
	}
	out := &Dir{Attr: attrOf(&st), Entries: map[string]Entry{}}
	var err error
	if out.Attr.Xattrs, err = xattrsOf(int(d.Fd())); err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return nil, err
		}
		e, err := c.entry(d, name, depth)
		if err != nil {
			return nil, err
		}
		out.Entries[name] = e
	}
	return out, nil
}

func (c *copier) entry(d *os.File, name string, depth int) (Entry, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Entry{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		sub, err := openIn(d, name, unix.O_DIRECTORY)
		if err != nil {
			return Entry{}, err
		}
		defer sub.Close()
		dir, err := c.dir(sub, depth+1)
		return Entry{Type: TypeDirectory, Dir: dir}, err
	}
	if e, ok := c.seen[st.Ino]; ok && st.Nlink > 1 {
		c.w.Link(e.Inode)
		return e, nil
	}
	e, err := c.file(d, name, &st)
	if st.Nlink > 1 {
		c.seen[st.Ino] = e
	}
	return e, err
}

// file writes anything but a directory.
func (c *copier) file(d *os.File, name string, st *unix.Stat_t) (Entry, error) {
	attr := attrOf(st)
	node := func(kind uint8) (Entry, error) {
		nid, err := c.w.Node(attr, Device(unix.Major(st.Rdev), unix.Minor(st.Rdev)))
		return Entry{Type: kind, Inode: nid}, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return c.regular(d, name, attr)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(d.Fd()), name, buf)
		if err != nil {
			return Entry{}, err
		}
		nid, err := c.w.Symlink(attr, string(buf[:n]))
		return Entry{Type: TypeSymlink, Inode: nid}, err
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			nid, err := c.w.Whiteout()
			return Entry{Type: TypeCharacter, Inode: nid}, err
		}
		return node(TypeCharacter)
	case unix.S_IFBLK:
		return node(TypeBlock)
	case unix.S_IFIFO, unix.S_IFSOCK:
		// Nobody listens on a socket in an image.
		attr.Mode = attr.Mode&^unix.S_IFMT | unix.S_IFIFO
		return node(TypeFIFO)
	}
	return Entry{}, fmt.Errorf("%s is of mode %o: %w", name, st.Mode, errdefs.ErrInvalidArgument)
}

func (c *copier) regular(d *os.File, name string, attr Attr) (Entry, error) {
	f, err := openIn(d, name, 0)
	if err != nil {
		return Entry{}, err
	}
	defer f.Close()
	if attr.Xattrs, err = xattrsOf(int(f.Fd())); err != nil {
		return Entry{}, err
	}
	// The size of what was opened, which is what is read.
	fi, err := f.Stat()
	if err != nil {
		return Entry{}, err
	}
	nid, err := c.w.Sparse(attr, fi.Size(), io.LimitReader(f, fi.Size()))
	return Entry{Type: TypeRegular, Inode: nid}, err
}

func openIn(d *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func attrOf(st *unix.Stat_t) Attr {
	return Attr{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Mtime: time.Unix(st.Mtim.Unix())}
}

// keptXattr says which xattrs of a directory go into its image: not those that
// overlayfs notes for itself, which mean nothing elsewhere.
func keptXattr(name string) bool {
	if name == "trusted.overlay.opaque" || name == "security.capability" {
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

func xattrsOf(fd int) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, buf)
	if err == unix.ENOTSUP || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	xattrs := map[string]string{}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if !keptXattr(name) {
			continue
		}
		size, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			return nil, err
		}
		xattrs[name] = string(value[:size])
	}
	return xattrs, nil
}
