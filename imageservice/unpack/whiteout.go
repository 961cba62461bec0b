package unpack

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// How a layer's tar tells deletions; see "Whiteouts" in the layer chapter of
// the OCI image specification.
const (
	whiteoutPrefix = ".wh."
	// metaPrefix begins names that AUFS kept notes under.
	metaPrefix = ".wh..wh."
	opaqueName = ".wh..wh..opq"
)

// opaqueXattr makes overlayfs hide what is below a directory.
const opaqueXattr = "trusted.overlay.opaque"

// hideBelow makes a directory hide what the layers below have in it.
func (l *layer) hideBelow(dir int) error {
	switch {
	case l.opts.Lowers == nil:
		return nil
	case dir == l.root:
		l.rootOpaque = true
		return nil
	}
	return setOpaque(dir)
}

// whiteout deletes what the layers below have of that name; what this layer
// has stays, whichever came first. parent is the path dir was found by.
func (l *layer) whiteout(dir int, parent, name string) error {
	if l.opts.Lowers == nil {
		return nil
	}
	made, err := l.mark(dir, name)
	if made {
		l.whiteouts[parent] = append(l.whiteouts[parent], name)
	}
	return err
}

// mark makes a whiteout, or hides what is below a directory.
func (l *layer) mark(dir int, name string) (made bool, err error) {
	err = unix.Mknodat(dir, name, unix.S_IFCHR, 0)
	if err == nil {
		l.inodes++
		return true, nil
	}
	if err != unix.EEXIST {
		return false, err
	}
	fd, err := openDirAt(dir, name)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return false, setOpaque(fd)
}

// prune removes whiteouts of what is not there: overlayfs would list them as
// devices in a directory that it need not join with one below.
func (l *layer) prune(ctx context.Context) error {
	for parent, names := range l.whiteouts {
		dir, resolved, err := l.walk(ctx, parent)
		if _, replaced := errors.AsType[notDirectory](err); replaced {
			continue // and they went with it
		}
		if err != nil {
			return fmt.Errorf("deletions in %q: %w", shorten(parent), err)
		}
		err = l.pruneDir(ctx, dir, resolved, names)
		unix.Close(dir.fd)
		if err != nil {
			return fmt.Errorf("deletions in %q: %w", shorten(parent), err)
		}
	}
	return nil
}

func (l *layer) pruneDir(ctx context.Context, dir step, resolved string, names []string) error {
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(dir.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || !isWhiteout(&st) {
			continue // something came in its place
		}
		f, err := l.lookupName(ctx, dir, resolved, name)
		if err != nil {
			return err
		}
		if f != nil {
			f.close()
			continue
		}
		if err := unix.Unlinkat(dir.fd, name, 0); err != nil {
			return err
		}
		l.inodes--
	}
	return nil
}

// hideRoot deletes what the layers below have in their root directories:
// overlayfs joins these whatever their xattrs say.
func (l *layer) hideRoot(ctx context.Context) error {
	return l.eachInRoot(ctx, func(name string) error {
		_, err := l.mark(l.root, name)
		return err
	})
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func setOpaque(fd int) error {
	if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("set xattr %s: %w", opaqueXattr, err)
	}
	return nil
}

func isOpaque(fd int) bool {
	var value [1]byte
	n, err := unix.Fgetxattr(fd, opaqueXattr, value[:])
	return err == nil && n == 1 && value[0] == 'y'
}
