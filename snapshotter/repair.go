package snapshotter

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/nodeagent/nodeagent/snapshotter/erofs"
)

// maxSums bounds a file of checksums, in bytes.
const maxSums = 512 << 20

// committedLayer finds a committed snapshot.
func (o *Overlay) committedLayer(name string) (*snapshot, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.find(name)
	if err == nil && s.info.Kind != snapshots.KindCommitted {
		err = fmt.Errorf("snapshot %s is not committed: %w", name, errdefs.ErrFailedPrecondition)
	}
	return s, err
}

// CheckLayer fails with ErrDataLoss when the files of a committed snapshot are
// not there. It looks at nothing but that, by one system call.
func (o *Overlay) CheckLayer(name string) error {
	s, err := o.committedLayer(name)
	if err != nil {
		return err
	}
	path := o.fsDir(s.id)
	if s.image {
		path = o.imageFile(s.id)
	}
	if _, err := os.Lstat(path); err != nil {
		return fmt.Errorf("layer %s: %w: %w", name, err, errdefs.ErrDataLoss)
	}
	return nil
}

// LayerSums returns what SealLayer was given for a committed snapshot, or
// ErrNotFound when nobody did.
func (o *Overlay) LayerSums(name string) ([]byte, error) {
	s, err := o.committedLayer(name)
	if err != nil {
		return nil, err
	}
	data, err := atomicfile.Read(o.sumsFile(s.id), maxSums)
	if os.IsNotExist(err) {
		return nil, fmt.Errorf("checksums of layer %s: %w", name, errdefs.ErrNotFound)
	}
	return data, err
}

// RestoreLayer gives a committed snapshot the files of an active one, whose
// content is the same and which is gone then. Who has the old files open, or
// mounted, goes on with those.
func (o *Overlay) RestoreLayer(ctx context.Context, name, key string) error {
	c, err := o.committedLayer(name)
	if err != nil {
		return fmt.Errorf("restore layer: %w", err)
	}
	s, err := o.take(key)
	if err != nil {
		return fmt.Errorf("restore layer %s: %w", name, err)
	}
	if c.image != s.image {
		o.release(s)
		return fmt.Errorf("restore layer %s: %s is of another form: %w", name, key, errdefs.ErrInvalidArgument)
	}
	restore := o.restoreDir
	if c.image {
		restore = o.restoreImage
	}
	err = restore(c, s)
	if err == nil {
		err = o.sync(c)
	}
	o.release(s)
	if err != nil {
		return fmt.Errorf("restore layer %s: %w", name, err)
	}
	return o.Remove(ctx, key)
}

func (o *Overlay) restoreDir(c, s *snapshot) error {
	if err := c.attr.set(o.fsDir(s.id)); err != nil {
		return err
	}
	// Those who have it mounted need its files: they go with the snapshot.
	old := filepath.Join(o.dir(c.id), fmt.Sprintf("old-%d", s.id))
	o.mu.Lock()
	idle := c.users == 0
	o.mu.Unlock()
	if idle {
		old = filepath.Join(o.root, trashName, fmt.Sprintf("%d-%d", c.id, s.id))
	}
	if err := os.Rename(o.fsDir(c.id), old); err != nil && !os.IsNotExist(err) {
		return err
	}
	o.reap.wake()
	if err := os.Rename(o.fsDir(s.id), o.fsDir(c.id)); err != nil {
		return err
	}
	return o.moveSums(c, s)
}

func (o *Overlay) moveSums(c, s *snapshot) error {
	err := os.Rename(o.sumsFile(s.id), o.sumsFile(c.id))
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

func (o *Overlay) restoreImage(c, s *snapshot) error {
	// As at commit: the root may look as the one of the layer below.
	parent := &snapshot{id: s.id, parent: &snapshot{attr: c.attr}}
	f, err := os.OpenFile(o.imageFile(s.id), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = o.setRoot(f, parent)
	f.Close()
	if err != nil {
		return err
	}
	sum, err := erofs.Verity(o.imageFile(s.id))
	if err != nil {
		return err
	}
	if err := os.Rename(o.imageFile(s.id), o.imageFile(c.id)); err != nil {
		return err
	}
	o.images.mu.Lock()
	o.images.stale[c.id] = o.images.mounted[c.id]
	o.images.mu.Unlock()
	if err := o.moveSums(c, s); err != nil {
		return err
	}
	o.mu.Lock()
	c.verity = hex.EncodeToString(sum)
	changed := *c
	o.mu.Unlock()
	return o.write(&changed, true)
}
