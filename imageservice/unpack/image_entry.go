package unpack

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/snapshotter/erofs"
)

// image is the form an image has attributes in; kind is the type of st_mode.
func (a attributes) image(kind uint32) erofs.Attr {
	mode := a.mode
	if a.link {
		mode = 0o777
	}
	return erofs.Attr{Mode: kind | mode, UID: uint32(a.uid), GID: uint32(a.gid), Mtime: a.mtime, Xattrs: a.xattrs}
}

func (t *tree) makeRoot(attr attributes) error {
	t.rootSet = true
	t.root.Attr = attr.image(unix.S_IFDIR)
	return nil
}

// makeDir makes a directory, or takes the one that is there. In place of
// anything else it hides what is below.
func (t *tree) makeDir(at *place, rel string, attr attributes) error {
	_, base := split(rel)
	old, there := at.dir.Entries[base]
	if old.Dir != nil {
		hiding := isHiding(old.Dir)
		old.Dir.Attr = attr.image(unix.S_IFDIR)
		if hiding {
			t.hide(old.Dir)
		}
		return nil
	}
	dir, err := t.newDir(attr.image(unix.S_IFDIR))
	if err != nil {
		return err
	}
	if there {
		t.hide(dir)
	}
	return t.set(at, base, erofs.Entry{Type: erofs.TypeDirectory, Dir: dir})
}

func (t *tree) makeFile(at *place, base string, hdr *tar.Header, attr attributes, content io.Reader) error {
	write := t.w.File
	if isSparse(hdr) {
		write = t.w.Sparse
	}
	nid, err := write(attr.image(unix.S_IFREG), hdr.Size, content)
	if err != nil {
		return streamError(err)
	}
	return t.set(at, base, erofs.Entry{Type: erofs.TypeRegular, Inode: nid})
}

func (t *tree) makeSymlink(at *place, base, target string, attr attributes) error {
	switch {
	case strings.IndexByte(target, 0) >= 0:
		return fmt.Errorf("a target with a zero byte: %w", errdefs.ErrInvalidArgument)
	case len(target) >= unix.PathMax:
		return unix.ENAMETOOLONG
	}
	// A link has no xattrs that are wanted: user.* is only for files and
	// directories.
	attr.xattrs = nil
	nid, err := t.w.Symlink(attr.image(unix.S_IFLNK), target)
	if err != nil {
		return err
	}
	return t.set(at, base, erofs.Entry{Type: erofs.TypeSymlink, Inode: nid, Target: target})
}

func (t *tree) makeNode(at *place, base string, kind uint32, device uint64, attr attributes) error {
	attr.xattrs = nil
	return t.node(at, base, attr.image(kind), unix.Major(device), unix.Minor(device))
}

// node makes a device or FIFO.
func (t *tree) node(at *place, base string, attr erofs.Attr, major, minor uint32) error {
	kinds := map[uint32]uint8{unix.S_IFCHR: erofs.TypeCharacter, unix.S_IFBLK: erofs.TypeBlock, unix.S_IFIFO: erofs.TypeFIFO}
	kind, ok := kinds[attr.Mode&unix.S_IFMT]
	if !ok {
		return fmt.Errorf("a file of mode %o: %w", attr.Mode, errdefs.ErrInvalidArgument)
	}
	nid, err := t.w.Node(attr, erofs.Device(major, minor))
	if err != nil {
		return err
	}
	return t.set(at, base, erofs.Entry{Type: kind, Inode: nid})
}

// link makes a hard link to a file of this layer, or of one below.
func (t *tree) link(ctx context.Context, rel, to string) error {
	from, toBase, err := t.parent(ctx, to)
	if err != nil {
		return err
	}
	e, ok := from.dir.Entries[toBase]
	if !ok && from.shines {
		if err := t.copyUp(ctx, from, toBase); err != nil {
			return err
		}
		e, ok = from.dir.Entries[toBase]
	}
	switch {
	case !ok || isDeleted(e):
		return fmt.Errorf("nothing is there: %w", errdefs.ErrInvalidArgument)
	case e.Dir != nil:
		return fmt.Errorf("it is a directory: %w", errdefs.ErrInvalidArgument)
	}
	at, base, err := t.parent(ctx, rel)
	if err != nil {
		return err
	}
	t.w.Link(e.Inode)
	return t.set(at, base, e)
}

// copyUp brings a file of a layer below into this one, so that it can get
// another link.
func (t *tree) copyUp(ctx context.Context, at *place, base string) error {
	f, err := t.lookupName(ctx, at, base)
	if err != nil || f == nil {
		return err
	}
	defer f.close()
	attr, err := f.attr()
	if err != nil {
		return err
	}
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return t.copyUpFile(ctx, at, base, f, attr)
	case unix.S_IFLNK:
		link, err := readlinkat(f.dir, base)
		if err != nil {
			return err
		}
		return t.makeSymlink(at, base, link, attributes{
			uid: int(attr.UID), gid: int(attr.GID), mtime: attr.Mtime, link: true,
		})
	case unix.S_IFDIR:
		return fmt.Errorf("it is a directory: %w", errdefs.ErrInvalidArgument)
	}
	return t.node(at, base, attr, unix.Major(f.st.Rdev), unix.Minor(f.st.Rdev))
}

func (t *tree) copyUpFile(ctx context.Context, at *place, base string, f *found, attr erofs.Attr) error {
	fd, err := unix.Openat(f.dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(fd), base)
	defer src.Close()
	if t.size += f.st.Size; t.size > t.limits.Bytes {
		return fmt.Errorf("a layer of more than %d bytes: %w", t.limits.Bytes, errdefs.ErrInvalidArgument)
	}
	nid, err := t.w.Sparse(attr, f.st.Size, &rationed{ctx, src, &t.budget})
	if err != nil {
		return err
	}
	return t.set(at, base, erofs.Entry{Type: erofs.TypeRegular, Inode: nid})
}
