// Package layer tells what a container has changed: it compares the folder
// overlayfs writes to with the layers of the image below it.
//
// Both hold what images and containers wrote. Each folder is opened from its
// parent's descriptor without following links, so that no name in them leads
// anywhere else, whatever a running container does meanwhile.
package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Kind is how a path differs.
type Kind int

// The kinds.
const (
	Modified Kind = iota
	Added
	Deleted
)

// Change is one path that differs.
type Change struct {
	Kind Kind
	// Path is absolute in the container.
	Path string
}

// opaqueNames are the attributes that hide what lies below a folder.
var opaqueNames = []string{"trusted.overlay.opaque", "user.overlay.opaque"}

// maxDepth is how deep folders are looked into; Linux lets no path be that
// long. maxOpen is how many folders may be open at once, those of all layers
// together: whoever nests them must not use up what all containers share.
const (
	maxDepth = 4096
	maxOpen  = 8192
)

// ErrTooDeep is a folder deeper than any path can be, or than is looked into.
var ErrTooDeep = errors.New("folders are nested too deep")

// Changes calls each for every path in which upper differs from lowers, a
// folder before what is in it, names in order. lowers are folders of layers
// in overlayfs' format, the uppermost first. It ends with what each returns
// when that is not nil.
func Changes(ctx context.Context, upper string, lowers []string, each func(Change) error) error {
	w := &walker{ctx: ctx, each: each}
	up, err := os.OpenFile(upper, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer up.Close()
	var below []*os.File
	defer func() { closeAll(below) }()
	for _, dir := range lowers {
		f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		below = append(below, f)
	}
	return w.folder("/", up, below, 0)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// walker goes through the upper folder.
type walker struct {
	ctx  context.Context
	each func(Change) error
	// open counts the folders below the first ones that are open.
	open int
}

// folder compares one folder with those it is merged with.
func (w *walker) folder(name string, up *os.File, below []*os.File, depth int) error {
	if depth > maxDepth {
		return ErrTooDeep
	}
	names, err := up.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read folder %s: %w", name, err)
	}
	slices.Sort(names)
	for _, entry := range names {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if err := w.entry(path.Join(name, entry), entry, up, below, depth); err != nil {
			return err
		}
	}
	return nil
}

// entry compares one entry of a folder.
func (w *walker) entry(full, name string, up *os.File, below []*os.File, depth int) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(up.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil // the container has just removed it
	}
	if err != nil {
		return &fs.PathError{Op: "stat", Path: full, Err: err}
	}
	if whiteout(&st) {
		return w.each(Change{Kind: Deleted, Path: full})
	}
	there, err := exists(below, name)
	if err != nil {
		return err
	}
	kind := Added
	if there {
		kind = Modified
	}
	if err := w.each(Change{Kind: kind, Path: full}); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	return w.enter(full, name, up, below, depth)
}

// enter compares a folder of the upper one.
func (w *walker) enter(full, name string, up *os.File, below []*os.File, depth int) error {
	f, err := openFolder(up, name)
	if f == nil {
		return err
	}
	defer f.Close()
	var merged []*os.File
	defer func() { closeAll(merged) }()
	if !opaque(f) {
		if merged, err = openMerged(below, name); err != nil {
			return err
		}
	}
	w.open += 1 + len(merged)
	defer func() { w.open -= 1 + len(merged) }()
	if w.open > maxOpen {
		return ErrTooDeep
	}
	return w.folder(full, f, merged, depth+1)
}

// whiteout tells overlayfs' sign of a removed file.
func whiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// opaque tells whether a folder hides what lies below it.
func opaque(f *os.File) bool {
	var value [2]byte
	for _, name := range opaqueNames {
		if n, err := unix.Fgetxattr(int(f.Fd()), name, value[:]); err == nil && n == 1 && value[0] == 'y' {
			return true
		}
	}
	return false
}

// exists says whether the merged folder has an entry: the uppermost layer
// that has the name decides.
func exists(layers []*os.File, name string) (bool, error) {
	for _, dir := range layers {
		var st unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			return !whiteout(&st), nil
		}
		if !errors.Is(err, unix.ENOENT) {
			return false, &fs.PathError{Op: "stat", Path: name, Err: err}
		}
	}
	return false, nil
}

// openFolder opens a folder in another; nil without an error where there is
// none.
func openFolder(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openMerged opens the folders of a name that overlayfs merges: down to the
// first that is opaque, and no further than to what is no folder.
func openMerged(layers []*os.File, name string) (merged []*os.File, err error) {
	for _, dir := range layers {
		var st unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return merged, &fs.PathError{Op: "stat", Path: name, Err: err}
		}
		f, err := openFolder(dir, name)
		if f == nil {
			return merged, err
		}
		merged = append(merged, f)
		if opaque(f) {
			return merged, nil
		}
	}
	return merged, nil
}
