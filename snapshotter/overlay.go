// Package snapshotter keeps the layers of images and the writable layers of
// containers, and joins them with overlayfs. Layers are directories or EROFS
// images; writable layers are always directories.
//
// # On the disk
//
//	<root>/<id>/fs      the snapshot's own files, in overlayfs' upper format
//	<root>/<id>/work    overlayfs' work directory; active snapshots only
//	<root>/<id>/image   the layer as an EROFS image, in place of both
//	<root>/<id>/sums    checksums of the layer
//	<root>/<id>/old-…   files before a repair, which containers still have mounted
//	<root>/<id>/record  name, parent, labels, usage: a checksummed JSON line
//	<root>/trash/…      what was removed and is being deleted
//	<mounts>/<id>       where an image is mounted while somebody needs it
//
// IDs are short numbers, so that the paths of many layers fit in one mount
// option. A directory without a good record is a layer being unpacked, or what a
// killed agent left half-made, and is deleted at start. Removal is one rename into trash, after
// which a goroutine of the snapshotter deletes at leisure.
//
// # Durability
//
// Prepare, View, Mounts and Remove never wait for the disk. Commit does,
// unless its caller says with LabelSync that it syncs the filesystem itself,
// as a pull does once for all its layers.
//
// # Errors
//
// ErrNotFound, ErrAlreadyExists, ErrFailedPrecondition (a parent with
// children is removed, something not active is committed),
// ErrInvalidArgument, and what the filesystem says.
package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Labels with a meaning for this package.
const (
	// LabelVolatile, "true" at Prepare, mounts the snapshot volatile:
	// nothing is synced when it is unmounted, and it must not be mounted
	// again after a reboot.
	LabelVolatile = "nodeagent/volatile"
	// LabelLayer, "true" at Prepare without a parent, is for a layer that is
	// unpacked: before it is committed it has neither a record, so that it is
	// gone after a restart, nor a work directory, nor, where layers are
	// images, a directory for files. It is not stored.
	LabelLayer = "nodeagent/unpacking"
	// LabelSync, "caller" at Commit, leaves making files and record durable
	// to the caller. It is not stored.
	LabelSync = "nodeagent/sync"
	// LabelBytes and LabelInodes, decimal at Commit and both together, tell
	// the usage of the committed files, so that they need not be walked.
	// They are not stored.
	LabelBytes  = "nodeagent/bytes"
	LabelInodes = "nodeagent/inodes"
	// LabelRoot, "parent" at Commit, gives the snapshot's root directory the
	// looks that the parent's has. It is not stored.
	LabelRoot = "nodeagent/root"
)

const (
	trashName  = "trash"
	fsName     = "fs"
	workName   = "work"
	imageName  = "image"
	sumsName   = "sums"
	recordName = "record"
)

// Config says where and how snapshots are kept.
type Config struct {
	// Root is created, private to root, when it is not there. It must be on
	// a filesystem that overlayfs can use as an upper layer.
	Root string
	// Mounts, when it is not empty, makes this a snapshotter whose layers
	// are EROFS images: it is the directory that they are mounted below,
	// which a reboot voids.
	Mounts string
}

// Overlay is a snapshots.Snapshotter over overlayfs. All of its methods may
// be called at once from many goroutines. One process may open a root.
type Overlay struct {
	root string
	reap *reaper
	// images is nil when layers are directories.
	images *images

	// mu guards what follows and is never held over a system call.
	mu     sync.Mutex
	byName map[string]*snapshot
	nextID uint64
}

var (
	_ snapshots.Snapshotter = (*Overlay)(nil)
	_ snapshots.Cleaner     = (*Overlay)(nil)
)

// snapshot is one entry of the index. Its fields are guarded by Overlay.mu,
// except id, which never changes.
type snapshot struct {
	id     uint64
	info   snapshots.Info
	usage  snapshots.Usage
	parent *snapshot
	// children counts snapshots whose parent this is.
	children int
	// users counts active snapshots and views on top of it, however far.
	users int
	// image says that its files are in an EROFS image; verity is the digest
	// by which the filesystem checks that, in hexadecimal, if it does.
	image  bool
	verity string
	// unpacking says that it has no more than LabelLayer has it have.
	unpacking bool
	// busy is true while an operation makes, commits or removes it: others
	// find nothing of that name, and cannot take the name either.
	busy bool
	// attr is that of fs/, which a child's fs/ starts with.
	attr dirAttr
}

// New opens the snapshots below a root and starts deleting what was left
// there half-made. Close ends that.
func New(cfg Config) (*Overlay, error) {
	if !filepath.IsAbs(cfg.Root) {
		return nil, fmt.Errorf("open snapshots %q: not an absolute path: %w", cfg.Root, errdefs.ErrInvalidArgument)
	}
	root := filepath.Clean(cfg.Root)
	if err := os.MkdirAll(filepath.Join(root, trashName), 0o700); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	if err := os.Chmod(root, 0o700); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	o := &Overlay{root: root, byName: map[string]*snapshot{}, nextID: 1}
	garbage, err := o.load()
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	if cfg.Mounts != "" {
		if o.images, err = o.openImages(cfg.Mounts); err != nil {
			return nil, fmt.Errorf("open snapshots: %w", err)
		}
	}
	o.reap = startReaper(filepath.Join(root, trashName))
	for _, id := range garbage {
		if err := o.discard(id); err != nil {
			o.reap.stop()
			return nil, fmt.Errorf("open snapshots: %w", err)
		}
	}
	return o, nil
}

// Close stops deleting and waits for the directory being deleted. What is
// left in the trash goes at the next start. It may be called twice.
func (o *Overlay) Close() error {
	o.reap.stop()
	return nil
}

// Cleanup waits until everything removed so far is deleted.
func (o *Overlay) Cleanup(ctx context.Context) error {
	return o.reap.wait(ctx)
}

// Root is the directory all snapshots are below, as ImageFsInfo shows it.
func (o *Overlay) Root() string { return o.root }

// find returns the snapshot of a name. mu is held.
func (o *Overlay) find(name string) (*snapshot, error) {
	s, ok := o.byName[name]
	if !ok || s.busy {
		return nil, fmt.Errorf("snapshot %s: %w", name, errdefs.ErrNotFound)
	}
	return s, nil
}

// take finds a snapshot and makes it busy. The caller ends that with release,
// or removes it from the index.
func (o *Overlay) take(name string) (*snapshot, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.find(name)
	if err != nil {
		return nil, err
	}
	s.busy = true
	return s, nil
}

func (o *Overlay) release(s *snapshot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.busy = false
}

func (o *Overlay) dir(id uint64) string {
	return filepath.Join(o.root, strconv.FormatUint(id, 10))
}

func (o *Overlay) fsDir(id uint64) string {
	return filepath.Join(o.dir(id), fsName)
}

// discard moves a snapshot's directory into the trash.
func (o *Overlay) discard(id uint64) error {
	name := strconv.FormatUint(id, 10)
	err := os.Rename(filepath.Join(o.root, name), filepath.Join(o.root, trashName, name))
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		// There is no room for a name in the trash. The record goes first:
		// what is left without it is dropped at the next start.
		if err = os.Remove(filepath.Join(o.dir(id), recordName)); err == nil || os.IsNotExist(err) {
			err = os.RemoveAll(o.dir(id))
		}
	}
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	o.reap.wake()
	return nil
}
