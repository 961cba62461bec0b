package snapshotter

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"golang.org/x/sys/unix"
)

// Commit makes an active snapshot a committed one of another name. A
// snapshot prepared without a parent may get one here with
// snapshots.WithParent, which is how layers unpacked at the same time come
// on top of each other. Nil means that files and record are on the disk,
// unless LabelSync says otherwise. See LabelBytes for usage.
func (o *Overlay) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	var base snapshots.Info
	for _, opt := range opts {
		if err := opt(&base); err != nil {
			return fmt.Errorf("commit snapshot %s: %w", key, err)
		}
	}
	if err := o.commit(ctx, name, key, &base); err != nil {
		return fmt.Errorf("commit snapshot %s as %s: %w", key, name, err)
	}
	return nil
}

func (o *Overlay) commit(ctx context.Context, name, key string, base *snapshots.Info) error {
	s, err := o.take(key)
	if err != nil {
		return err
	}
	c, err := o.claim(s, name, base)
	if err != nil {
		o.release(s)
		return err
	}
	if err := o.seal(ctx, c, base); err != nil {
		o.unclaim(s, c)
		return err
	}
	o.mu.Lock()
	delete(o.byName, key)
	if s.parent != nil {
		s.parent.children--
	}
	s.use(-1)
	c.busy = false
	o.mu.Unlock()
	o.linger(s)
	return nil
}

// claim reserves the new name for the committed form of s, a busy copy.
func (o *Overlay) claim(s *snapshot, name string, base *snapshots.Info) (*snapshot, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.info.Kind != snapshots.KindActive {
		return nil, fmt.Errorf("it is not active: %w", errdefs.ErrFailedPrecondition)
	}
	if name == "" {
		return nil, fmt.Errorf("empty name: %w", errdefs.ErrInvalidArgument)
	}
	if _, ok := o.byName[name]; ok {
		return nil, errdefs.ErrAlreadyExists
	}
	now := time.Now().UTC()
	c := &snapshot{id: s.id, busy: true, image: s.image, unpacking: s.unpacking, parent: s.parent, info: snapshots.Info{
		Kind: snapshots.KindCommitted, Name: name, Parent: s.info.Parent,
		Labels: base.Labels, Created: now, Updated: now,
	}}
	if base.Parent != "" && base.Parent != s.info.Parent {
		if s.info.Parent != "" {
			return nil, fmt.Errorf("its parent is %s already: %w", s.info.Parent, errdefs.ErrInvalidArgument)
		}
		p, err := o.committed(base.Parent)
		if err != nil {
			return nil, err
		}
		c.parent, c.info.Parent = p, base.Parent
	}
	if c.parent != nil {
		c.parent.children++
	}
	o.byName[name] = c
	return c, nil
}

// unclaim gives the name back, and the active snapshot to others.
func (o *Overlay) unclaim(s, c *snapshot) {
	o.forget(c)
	o.release(s)
}

// seal makes files and record of c whole and durable.
func (o *Overlay) seal(ctx context.Context, c *snapshot, base *snapshots.Info) (err error) {
	if err := o.sealFiles(ctx, c, base.Labels); err != nil {
		return err
	}
	sync := base.Labels[LabelSync] != "caller"
	c.info.Labels = stored(base.Labels)
	if sync {
		if err := o.sync(c); err != nil {
			return err
		}
	}
	if err := o.write(c, sync); err != nil {
		return err
	}
	if c.unpacking {
		return nil
	}
	// What the committed form has no use for; what is left in it by a mount
	// that was cut goes with the snapshot.
	_ = os.RemoveAll(filepath.Join(o.dir(c.id), workName))
	if c.image {
		_ = os.RemoveAll(o.fsDir(c.id))
	}
	return nil
}

// sync waits until the files of c are on the disk: an image by itself, and a
// directory with the whole filesystem.
func (o *Overlay) sync(c *snapshot) error {
	if !c.image {
		return syncfs(o.dir(c.id))
	}
	for _, path := range []string{o.imageFile(c.id), o.sumsFile(c.id), o.dir(c.id), o.root} {
		if err := atomicfile.SyncDir(path); err != nil {
			return err
		}
	}
	return nil
}

// sealFiles finishes the files of c, and says of them what the record has.
func (o *Overlay) sealFiles(ctx context.Context, c *snapshot, labels map[string]string) (err error) {
	inherit := labels[LabelRoot] == "parent" && c.parent != nil
	if o.images != nil {
		return o.sealImage(ctx, c, inherit)
	}
	fs := o.fsDir(c.id)
	if c.attr, err = attrOf(fs); err != nil {
		return err
	}
	if inherit && c.attr != c.parent.attr {
		if err := c.parent.attr.set(fs); err != nil {
			return err
		}
		c.attr = c.parent.attr
	}
	c.usage, err = committedUsage(ctx, fs, labels)
	return err
}

// stored returns the labels that are kept: all but those that are options.
func stored(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return labels
	}
	kept := make(map[string]string, len(labels))
	for k, v := range labels {
		switch k {
		case LabelLayer, LabelSync, LabelBytes, LabelInodes, LabelRoot:
		default:
			kept[k] = v
		}
	}
	return kept
}

// committedUsage takes the usage from the labels, or walks the files.
func committedUsage(ctx context.Context, fs string, labels map[string]string) (snapshots.Usage, error) {
	b, berr := strconv.ParseInt(labels[LabelBytes], 10, 64)
	n, nerr := strconv.ParseInt(labels[LabelInodes], 10, 64)
	if berr == nil && nerr == nil {
		return snapshots.Usage{Size: b, Inodes: n}, nil
	}
	return diskUsage(ctx, fs)
}

// syncfs waits until the whole filesystem of path is on the disk.
func syncfs(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return &os.PathError{Op: "syncfs", Path: path, Err: err}
	}
	return nil
}
