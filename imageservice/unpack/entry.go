package unpack

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// attributes are what an entry gets beside its content.
type attributes struct {
	uid, gid int
	mode     uint32
	mtime    time.Time
	xattrs   map[string]string
	// link says that it is a symbolic link, which has no mode.
	link bool
}

func attributesOf(hdr *tar.Header) (attributes, error) {
	a := attributes{
		uid: hdr.Uid, gid: hdr.Gid, mode: uint32(hdr.Mode & 0o7777),
		mtime: hdr.ModTime, link: hdr.Typeflag == tar.TypeSymlink,
	}
	// The last value means "no change" to chown.
	for _, id := range []int{a.uid, a.gid} {
		if id < 0 || id >= math.MaxUint32 {
			return a, fmt.Errorf("owner %d:%d: %w", a.uid, a.gid, errdefs.ErrInvalidArgument)
		}
	}
	for key, value := range hdr.PAXRecords {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok && wantedXattr(name) {
			if a.xattrs == nil {
				a.xattrs = map[string]string{}
			}
			a.xattrs[name] = value
		}
	}
	return a, nil
}

// target is what the entries of a layer are put into: a directory or an image.
// P is a directory in it. Each method takes the place of what has the name.
type target[P any] interface {
	makeRoot(attr attributes) error
	// parent is the directory that an entry goes to, and its name there. What
	// the layer lacks of it is made.
	parent(ctx context.Context, rel string) (dir P, base string, err error)
	// makeDir makes a directory, or changes the one that is there.
	makeDir(dir P, rel string, attr attributes) error
	makeFile(dir P, base string, hdr *tar.Header, attr attributes, content io.Reader) error
	makeSymlink(dir P, base, to string, attr attributes) error
	makeNode(dir P, base string, kind uint32, device uint64, attr attributes) error
	// link gives what is at one path another.
	link(ctx context.Context, rel, to string) error
	// whiteout deletes what the layers below have of a name in a directory,
	// which was found by the path parent, and hideBelow all that is in it.
	whiteout(dir P, parent, name string) error
	hideBelow(dir P) error
}

// entryTo returns what unpacks one tar entry.
func entryTo[P any](t target[P], b *budget) func(context.Context, *tar.Header, io.Reader) error {
	return func(ctx context.Context, hdr *tar.Header, content io.Reader) error {
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			return nil
		}
		rel, err := b.clean(hdr.Name)
		if err != nil {
			return err
		}
		attr, err := attributesOf(hdr)
		if err != nil {
			return err
		}
		for name, value := range attr.xattrs {
			if err := b.name(len(name) + len(value)); err != nil {
				return err
			}
		}
		if rel != "" {
			return put(ctx, t, b, rel, hdr, attr, content)
		}
		if hdr.Typeflag != tar.TypeDir {
			return fmt.Errorf("the root is not a directory: %w", errdefs.ErrInvalidArgument)
		}
		return t.makeRoot(attr)
	}
}

// nodeOf is the type and device number of an entry.
func nodeOf(hdr *tar.Header) (kind uint32, device uint64, err error) {
	kind = map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[hdr.Typeflag]
	if kind == unix.S_IFIFO {
		return kind, 0, nil
	}
	if hdr.Devmajor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor < 0 || hdr.Devminor >= 1<<20 {
		return 0, 0, fmt.Errorf("device %d:%d: %w", hdr.Devmajor, hdr.Devminor, errdefs.ErrInvalidArgument)
	}
	return kind, unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)), nil
}

// put unpacks an entry that is not the root.
func put[P any](ctx context.Context, t target[P], b *budget, rel string, hdr *tar.Header, attr attributes, content io.Reader) error {
	dir, base, err := t.parent(ctx, rel)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return remove(t, dir, rel)
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		return t.makeDir(dir, rel, attr)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return t.makeFile(dir, base, hdr, attr, content)
	case tar.TypeLink:
		if err := link(ctx, t, b, rel, hdr.Linkname); err != nil {
			return fmt.Errorf("link to %q: %w", shorten(hdr.Linkname), err)
		}
		return nil
	case tar.TypeSymlink:
		if hdr.Linkname == "" {
			return fmt.Errorf("a symbolic link to nothing: %w", errdefs.ErrInvalidArgument)
		}
		return t.makeSymlink(dir, base, hdr.Linkname, attr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		kind, device, err := nodeOf(hdr)
		if err != nil {
			return err
		}
		if kind == unix.S_IFCHR && device == 0 {
			// This is how overlayfs writes a deletion, and some tools pack it
			// as they find it.
			parent, _ := split(rel)
			return t.whiteout(dir, parent, base)
		}
		return t.makeNode(dir, base, kind, device, attr)
	}
	return fmt.Errorf("an entry of type %q: %w", hdr.Typeflag, errdefs.ErrInvalidArgument)
}

// link makes a hard link, to a path that may be as bad as any other.
func link[P any](ctx context.Context, t target[P], b *budget, rel, target string) error {
	to, err := b.clean(target)
	switch {
	case err != nil:
		return err
	case to == rel:
		return fmt.Errorf("a link to itself: %w", errdefs.ErrInvalidArgument)
	case to == "":
		return fmt.Errorf("a link to the root: %w", errdefs.ErrInvalidArgument)
	}
	return t.link(ctx, rel, to)
}

// remove handles an entry whose name says that something is deleted.
func remove[P any](t target[P], dir P, rel string) error {
	parent, base := split(rel)
	if base == opaqueName {
		return t.hideBelow(dir)
	}
	if strings.HasPrefix(base, metaPrefix) {
		return nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("deletion of %q: %w", name, errdefs.ErrInvalidArgument)
	}
	return t.whiteout(dir, parent, name)
}
