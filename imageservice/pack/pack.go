// Package pack writes a directory tree as a tar stream: the writable layer of
// a container as the layer of an image, or the root filesystem of a container
// as it sees it. It is the other direction of package unpack.
//
// # Trees are hostile
//
// A container may change the tree while it is read. Every entry is opened
// from its directory's descriptor by openat2(2) without following a link or
// crossing a mount, and what is read is what was looked at: a regular file is
// pinned before it is opened, so that neither a pipe nor a device is. Nothing
// in the tree is executed. Entries, depth and names have bounds.
//
// # Same in, same out
//
// Entries are in the order of their names, times are cut to seconds, and the
// names of users are left out, so that the same tree gives the same bytes.
//
// Errors are ErrInvalidArgument for a tree that no layer can hold, or
// ErrFailedPrecondition for one that overlayfs wrote in a way that needs the
// layers below.
package pack

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// maxEntries bounds the entries of a layer, as unpacking does.
	maxEntries = 2 << 20
	// maxBytes bounds the content of a layer's files, holes included, as
	// unpacking does.
	maxBytes = 128 << 30
	// maxNames bounds those of one directory.
	maxNames = 1 << 20
	// maxDepth bounds how deep directories are looked into.
	maxDepth = 512
	// maxLinks bounds how many files are remembered for hard links to them;
	// the links to others become files.
	maxLinks = 1 << 20
)

// Options say how a tree is written.
type Options struct {
	// Layer writes what overlayfs has for deletions as a layer has it. It
	// is for the upper directory of an overlay.
	Layer bool
	// Owner, when not nil, translates the owner of a file.
	Owner func(uid, gid uint32) (int, int)
}

// Tree writes all that is below root, and root itself. The caller closes
// root.
func Tree(ctx context.Context, w io.Writer, root *os.File, opts Options) error {
	t := &tree{ctx: ctx, opts: opts, out: tar.NewWriter(w), links: map[inode]string{}, buf: make([]byte, 256<<10)}
	if err := t.root(root); err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	if err := t.out.Close(); err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	return nil
}

// inode names a file that may have several names.
type inode struct {
	dev, ino uint64
}

// tree is one run of Tree.
type tree struct {
	ctx     context.Context
	opts    Options
	out     *tar.Writer
	links   map[inode]string
	entries int
	bytes   int64
	buf     []byte
}

func (t *tree) root(root *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := t.directoryHeader("./", int(root.Fd()), &st); err != nil {
		return err
	}
	return t.directory("", root, 0)
}

// directory writes what is in an open directory.
func (t *tree) directory(name string, dir *os.File, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: directories are nested too deep: %w", shorten(name), errdefs.ErrInvalidArgument)
	}
	names, err := readNames(dir)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", shorten(name), err)
	}
	for _, entry := range names {
		if err := t.ctx.Err(); err != nil {
			return context.Cause(t.ctx)
		}
		if t.entries++; t.opts.Layer && t.entries > maxEntries {
			return fmt.Errorf("more than %d entries: %w", maxEntries, errdefs.ErrInvalidArgument)
		}
		full := entry
		if name != "" {
			full = name + "/" + entry
		}
		if err := t.entry(full, entry, dir, depth); err != nil {
			return err
		}
	}
	return nil
}

// readNames lists a directory in order.
func readNames(dir *os.File) ([]string, error) {
	var all []string
	for {
		names, err := dir.Readdirnames(4096)
		all = append(all, names...)
		if len(all) > maxNames {
			return nil, fmt.Errorf("more than %d entries: %w", maxNames, errdefs.ErrInvalidArgument)
		}
		if err == io.EOF || err == nil && len(names) == 0 {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return all, nil
}

// shorten keeps error messages readable.
func shorten(name string) string {
	if len(name) > 200 {
		return name[:200] + "…"
	}
	return name
}
