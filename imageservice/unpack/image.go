package unpack

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/snapshotter/erofs"
)

// ImageOptions say where the image of a layer goes and what is below it.
type ImageOptions struct {
	// File is empty, and open for reading and writing.
	File *os.File
	// Lowers and Limits are as in Options.
	Lowers func(context.Context) ([]*Lower, error)
	Limits Limits
}

// ApplyImage is Apply into an EROFS image, whose checksums it returns. Nothing
// is mounted, and no file is made but the image; deletions look in it as they
// do in a directory.
func ApplyImage(ctx context.Context, r io.ReadCloser, opts ImageOptions) (Result, *erofs.Sums, error) {
	defer r.Close()
	t := newTree(opts)
	defer t.w.Close()
	diffID, err := feed(ctx, r, &t.budget, entryTo(t, &t.budget))
	if err != nil {
		return Result{}, nil, err
	}
	sums, err := t.finish(ctx)
	if err != nil {
		return Result{}, nil, err
	}
	res := Result{DiffID: diffID, RootSet: t.rootSet, Inodes: 1}
	var st unix.Stat_t
	if err := unix.Fstat(int(opts.File.Fd()), &st); err != nil {
		return Result{}, nil, err
	}
	res.Bytes = st.Blocks * 512
	return res, sums, nil
}

// tree is an image being filled: its directories, and where the rest is. It
// is for one goroutine.
type tree struct {
	budget
	below
	w    *erofs.Writer
	root *erofs.Dir
	dirs int
	// last is where lastPath led, as long as that is so.
	last     *place
	lastPath string
	rootSet  bool
	// rootOpaque says that nothing of the layers below is to be seen.
	rootOpaque bool
	// whiteouts are those made, by the path of their directory.
	whiteouts map[string][]string
}

func newTree(opts ImageOptions) *tree {
	return &tree{
		budget: budget{limits: opts.Limits.withDefaults(), disk: int(opts.File.Fd())}, below: below{get: opts.Lowers},
		w:         erofs.NewWriter(opts.File),
		root:      &erofs.Dir{Attr: plainDir(), Entries: map[string]erofs.Entry{}},
		whiteouts: map[string][]string{},
	}
}

// plainDir is what a directory looks like that nobody describes.
func plainDir() erofs.Attr {
	return erofs.Attr{Mode: unix.S_IFDIR | 0o755, Mtime: time.Unix(0, 0)}
}

// place is a directory of this layer, and what is there in those below.
type place struct {
	dir *erofs.Dir
	// shines tells whether what is below this layer is seen through it.
	shines bool
	// path leads there without links.
	path []string
}

// newDir makes a directory.
func (t *tree) newDir(attr erofs.Attr) (*erofs.Dir, error) {
	if t.dirs++; t.dirs > t.limits.Dirs {
		return nil, fmt.Errorf("a layer of more than %d directories: %w", t.limits.Dirs, errdefs.ErrInvalidArgument)
	}
	return &erofs.Dir{Attr: attr, Entries: map[string]erofs.Entry{}}, nil
}

// set gives a directory an entry. What had the name before is gone.
func (t *tree) set(at *place, name string, e erofs.Entry) error {
	if len(name) > unix.NAME_MAX {
		return unix.ENAMETOOLONG
	}
	if old, ok := at.dir.Entries[name]; ok {
		t.forget(old)
	}
	at.dir.Entries[name] = e
	return nil
}

// forget is for an entry that is replaced.
func (t *tree) forget(old erofs.Entry) {
	// Paths that led through it lead elsewhere from now on.
	t.last = nil
	if old.Dir == nil && !isDeleted(old) {
		t.w.Unlink(old.Inode)
	}
}

// deleted is the entry of a whiteout. Its inode is set in the end.
var deleted = erofs.Entry{Type: erofs.TypeCharacter}

func isDeleted(e erofs.Entry) bool { return e.Type == erofs.TypeCharacter && e.Inode == 0 }

func isHiding(d *erofs.Dir) bool { return d.Attr.Xattrs[opaqueXattr] == "y" }

// hide makes a directory hide what is below it.
func (t *tree) hide(d *erofs.Dir) {
	if t.get == nil {
		return
	}
	t.last = nil
	xattrs := map[string]string{opaqueXattr: "y"}
	for name, value := range d.Attr.Xattrs {
		xattrs[name] = value
	}
	d.Attr.Xattrs = xattrs
}

// finish writes what could not be written before the end.
func (t *tree) finish(ctx context.Context) (*erofs.Sums, error) {
	if err := t.prune(ctx); err != nil {
		return nil, err
	}
	if t.rootOpaque {
		if err := t.hideRoot(ctx); err != nil {
			return nil, fmt.Errorf("hide the layers below: %w", err)
		}
	}
	if err := t.writeWhiteouts(t.root); err != nil {
		return nil, err
	}
	return t.w.Finish(t.root)
}

// writeWhiteouts gives the deletions that stayed their inode.
func (t *tree) writeWhiteouts(d *erofs.Dir) error {
	for name, e := range d.Entries {
		if e.Dir != nil {
			if err := t.writeWhiteouts(e.Dir); err != nil {
				return err
			}
			continue
		}
		if !isDeleted(e) {
			continue
		}
		var err error
		if e.Inode, err = t.w.Whiteout(); err != nil {
			return err
		}
		d.Entries[name] = e
	}
	return nil
}
