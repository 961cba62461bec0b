package snapshotter

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Prepare makes a writable snapshot. It costs a few system calls and no sync.
func (o *Overlay) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	m, err := o.create(snapshots.KindActive, key, parent, opts)
	if err != nil {
		return nil, fmt.Errorf("prepare snapshot %s: %w", key, err)
	}
	return m, nil
}

// View makes a read-only look at a committed snapshot, or at nothing when
// parent is empty.
func (o *Overlay) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	m, err := o.create(snapshots.KindView, key, parent, opts)
	if err != nil {
		return nil, fmt.Errorf("view snapshot %s: %w", key, err)
	}
	return m, nil
}

func (o *Overlay) create(kind snapshots.Kind, key, parent string, opts []snapshots.Opt) ([]mount.Mount, error) {
	var base snapshots.Info
	for _, opt := range opts {
		if err := opt(&base); err != nil {
			return nil, err
		}
	}
	s, err := o.reserve(kind, key, parent)
	if err != nil {
		return nil, err
	}
	s.info.Labels = stored(base.Labels)
	s.unpacking = kind == snapshots.KindActive && parent == "" && base.Labels[LabelLayer] == "true"
	if err := o.make(s); err != nil {
		o.forget(s)
		// The record comes last, so that a directory that cannot be moved
		// away now is garbage at the next start.
		_ = o.discard(s.id)
		return nil, err
	}
	if err := o.mountLayers(s); err != nil {
		o.forget(s)
		_ = o.discard(s.id)
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s.busy = false
	return o.mounts(s)
}

// reserve puts a busy snapshot into the index.
func (o *Overlay) reserve(kind snapshots.Kind, key, parent string) (*snapshot, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if key == "" {
		return nil, fmt.Errorf("empty key: %w", errdefs.ErrInvalidArgument)
	}
	if _, ok := o.byName[key]; ok {
		return nil, errdefs.ErrAlreadyExists
	}
	now := time.Now().UTC()
	s := &snapshot{
		busy: true,
		attr: dirAttr{Mode: 0o755},
		info: snapshots.Info{Kind: kind, Name: key, Parent: parent, Created: now, Updated: now},
	}
	if parent != "" {
		p, err := o.committed(parent)
		if err != nil {
			return nil, err
		}
		s.parent = p
		s.attr = p.attr
		p.children++
		s.use(1)
	}
	s.id = o.nextID
	o.nextID++
	o.byName[key] = s
	return s, nil
}

// committed finds a parent. mu is held.
func (o *Overlay) committed(name string) (*snapshot, error) {
	p, err := o.find(name)
	if err != nil {
		return nil, fmt.Errorf("parent: %w", err)
	}
	if p.info.Kind != snapshots.KindCommitted {
		return nil, fmt.Errorf("parent %s is not committed: %w", name, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

// forget takes a snapshot out of the index, and unmounts what only it needed.
func (o *Overlay) forget(s *snapshot) {
	o.mu.Lock()
	delete(o.byName, s.info.Name)
	if s.parent != nil {
		s.parent.children--
	}
	if s.info.Kind != snapshots.KindCommitted {
		s.use(-1)
	}
	o.mu.Unlock()
	o.unmountIdle(s)
}

// use counts a snapshot among those that need the layers below it. Overlay.mu
// is held.
func (s *snapshot) use(n int) {
	for p := s.parent; p != nil; p = p.parent {
		p.users += n
	}
}

// make creates the directories and, when they are whole, the record. What is to
// be a layer needs neither a record before it is one, nor a work directory.
func (o *Overlay) make(s *snapshot) error {
	dir := o.dir(s.id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if s.unpacking && o.images != nil {
		return nil
	}
	if err := s.attr.mkdir(filepath.Join(dir, fsName)); err != nil || s.unpacking {
		return err
	}
	if s.info.Kind == snapshots.KindActive {
		if err := os.Mkdir(filepath.Join(dir, workName), 0o700); err != nil {
			return err
		}
	}
	return o.write(s, false)
}

// dirAttr is what the root directory of a snapshot looks like in the
// containers made from it.
type dirAttr struct {
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	Mode uint32 `json:"mode"`
}

// mkdir makes a directory of these attributes, whatever the umask.
func (a dirAttr) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if a.UID == 0 && a.GID == 0 {
		return chmod(path, a.Mode)
	}
	return a.set(path)
}

// set gives them to a directory.
func (a dirAttr) set(path string) error {
	if err := os.Lchown(path, int(a.UID), int(a.GID)); err != nil {
		return err
	}
	return chmod(path, a.Mode)
}

func chmod(path string, mode uint32) error {
	if err := unix.Chmod(path, mode); err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	return nil
}

// attrOf reads the attributes of a directory.
func attrOf(path string) (dirAttr, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return dirAttr{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return dirAttr{UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777}, nil
}
