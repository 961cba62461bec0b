package snapshotter

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/nodeagent/nodeagent/snapshotter/erofs"
)

// images mounts the images of layers, each once however many snapshots are on
// top of it.
type images struct {
	dir string

	// mu guards what follows. It is held over mounting, so that nobody is
	// told of a mount before it is there; that reads one block of a file.
	mu      sync.Mutex
	mounted map[uint64]bool
	// held counts callers of HoldLayer.
	held map[uint64]int
	// stale are mounted images that were changed meanwhile.
	stale map[uint64]bool
	// lingering are snapshots that were on top of mounted images until they
	// were committed.
	lingering []*snapshot
}

// imageLayer is one image to be mounted.
type imageLayer struct {
	id     uint64
	verity string
}

// openImages finds what the last process has mounted, and unmounts what nobody
// needs any more.
func (o *Overlay) openImages(dir string) (*images, error) {
	if err := erofs.Available(); err != nil {
		return nil, err
	}
	m := &images{dir: filepath.Clean(dir), mounted: map[uint64]bool{}, held: map[uint64]int{}, stale: map[uint64]bool{}}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return nil, err
	}
	needed := map[uint64]bool{}
	for _, s := range o.byName {
		needed[s.id] = s.users > 0
	}
	points, err := mountsBelow(m.dir)
	if err != nil {
		return nil, err
	}
	for _, name := range points {
		id, err := strconv.ParseUint(name, 10, 64)
		if err == nil && needed[id] {
			m.mounted[id] = true
			continue
		}
		if err := m.unmount(filepath.Join(m.dir, name)); err != nil {
			return nil, err
		}
	}
	return m, m.sweep()
}

// sweep removes mount points of nothing.
func (m *images) sweep() error {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if id, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && !m.mounted[id] {
			_ = os.Remove(filepath.Join(m.dir, e.Name()))
		}
	}
	return nil
}

// mountsBelow lists the names in a directory that something is mounted on.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			if name, ok := strings.CutPrefix(fields[4], dir+"/"); ok && !strings.Contains(name, "/") {
				names = append(names, name)
			}
		}
	}
	return names, lines.Err()
}

// point is where an image is mounted.
func (m *images) point(id uint64) string {
	return filepath.Join(m.dir, strconv.FormatUint(id, 10))
}

func (m *images) unmount(point string) error {
	if err := Unmount(point); err != nil {
		return err
	}
	if err := os.Remove(point); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// mount mounts an image unless it is. mu is held.
func (m *images) mount(l imageLayer, file string) error {
	if m.mounted[l.id] && !m.stale[l.id] {
		return nil
	}
	point := m.point(l.id)
	if err := m.unmount(point); err != nil {
		return err
	}
	delete(m.mounted, l.id)
	delete(m.stale, l.id)
	if err := checkVerity(file, l.verity); err != nil {
		return err
	}
	if err := os.Mkdir(point, 0o700); err != nil {
		return err
	}
	if err := erofs.Mount(file, point); err != nil {
		_ = os.Remove(point)
		return err
	}
	m.mounted[l.id] = true
	return nil
}

// checkVerity compares a file with the digest it was committed with.
func checkVerity(file, want string) error {
	if want == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := erofs.MeasureVerity(f)
	if err != nil {
		return err
	}
	if hex.EncodeToString(got) != want {
		return fmt.Errorf("image %s has fs-verity digest %x in place of %s: %w", file, got, want, errdefs.ErrDataLoss)
	}
	return nil
}

// drop unmounts an image whoever needs it.
func (m *images) drop(id uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(id)
}

// forget is drop with mu held.
func (m *images) forget(id uint64) {
	if !m.mounted[id] {
		return
	}
	if err := m.unmount(m.point(id)); err != nil {
		logrus.WithError(err).Warn("cannot unmount a layer; the next start tries again")
		return
	}
	delete(m.mounted, id)
	delete(m.stale, id)
}

// mountLayers mounts the images that a snapshot is on top of.
func (o *Overlay) mountLayers(s *snapshot) error {
	if o.images == nil {
		return nil
	}
	var layers []imageLayer
	o.mu.Lock()
	for p := s.parent; p != nil; p = p.parent {
		if p.image {
			layers = append(layers, imageLayer{p.id, p.verity})
		}
	}
	o.mu.Unlock()
	o.images.mu.Lock()
	defer o.images.mu.Unlock()
	for _, l := range layers {
		if err := o.images.mount(l, o.imageFile(l.id)); err != nil {
			return err
		}
	}
	return nil
}

// maxLingering bounds the snapshots whose layers stay mounted.
const maxLingering = 16

// linger keeps the layers below a snapshot mounted that was committed: as a
// rule another comes on top of it.
func (o *Overlay) linger(s *snapshot) {
	if o.images == nil || s.parent == nil {
		return
	}
	o.images.mu.Lock()
	o.images.lingering = append(o.images.lingering, s)
	full := len(o.images.lingering) > maxLingering
	o.images.mu.Unlock()
	if full {
		o.unmountIdle(s)
	}
}

// unmountIdle unmounts those of the layers below a snapshot, and below those
// that were committed, that nothing needs any more.
func (o *Overlay) unmountIdle(s *snapshot) {
	if o.images == nil {
		return
	}
	o.images.mu.Lock()
	defer o.images.mu.Unlock()
	var idle []uint64
	o.mu.Lock()
	for _, top := range append(o.images.lingering, s) {
		for p := top.parent; p != nil; p = p.parent {
			if p.users == 0 && o.images.held[p.id] == 0 {
				idle = append(idle, p.id)
			}
		}
	}
	o.mu.Unlock()
	o.images.lingering = nil
	for _, id := range idle {
		o.images.forget(id)
	}
}

// HoldLayer returns the directory with the files of one snapshot alone, in
// overlayfs' upper format, which stays until release is called. An image that
// SealLayer has seen is mounted for that. It may be called while the snapshot
// is being committed.
func (o *Overlay) HoldLayer(key string) (dir string, release func(), err error) {
	o.mu.Lock()
	s, ok := o.byName[key]
	if !ok {
		o.mu.Unlock()
		return "", nil, fmt.Errorf("snapshot %s: %w", key, errdefs.ErrNotFound)
	}
	l, image := imageLayer{s.id, s.verity}, s.image
	o.mu.Unlock()
	if !image {
		return o.fsDir(s.id), func() {}, nil
	}
	m := o.images
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.mount(l, o.imageFile(l.id)); err != nil {
		return "", nil, fmt.Errorf("layer %s: %w", key, err)
	}
	m.held[l.id]++
	return m.point(l.id), func() { o.unhold(s) }, nil
}

// unhold ends one HoldLayer.
func (o *Overlay) unhold(s *snapshot) {
	m := o.images
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[s.id]--; m.held[s.id] > 0 {
		return
	}
	delete(m.held, s.id)
	o.mu.Lock()
	users := 0
	// The snapshot may have been committed meanwhile, which is a copy.
	for _, other := range o.byName {
		if other.id == s.id {
			users += other.users
		}
	}
	o.mu.Unlock()
	if users == 0 {
		m.forget(s.id)
	}
}

func (o *Overlay) imageFile(id uint64) string { return filepath.Join(o.dir(id), imageName) }

func (o *Overlay) sumsFile(id uint64) string { return filepath.Join(o.dir(id), sumsName) }

// LayerFile returns the file that the image of an active snapshot is written
// to, which SealLayer follows, or that of a committed one is in. It returns
// nothing when the layer is a directory.
func (o *Overlay) LayerFile(key string) (string, error) {
	if o.images == nil {
		return "", nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.find(key)
	if err != nil {
		return "", err
	}
	if s.info.Kind == snapshots.KindCommitted && !s.image {
		return "", nil
	}
	return o.imageFile(s.id), nil
}

// SealLayer keeps the checksums of an active snapshot whose files are all
// there: as erofs.Sums has them for an image, in any form for a directory.
func (o *Overlay) SealLayer(key string, sums []byte) error {
	s, err := o.take(key)
	if err != nil {
		return fmt.Errorf("seal layer: %w", err)
	}
	defer o.release(s)
	if err := atomicfile.Create(o.sumsFile(s.id), sums, 0o600); err != nil {
		return fmt.Errorf("seal layer %s: %w", key, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s.image = o.images != nil
	return nil
}

// sealImage makes the files of a snapshot an image, if they are not, and says
// of it what the record has.
func (o *Overlay) sealImage(ctx context.Context, c *snapshot, inherit bool) error {
	if !c.image {
		if err := o.convert(ctx, c); err != nil {
			return fmt.Errorf("make its image: %w", err)
		}
		c.image = true
	}
	file := o.imageFile(c.id)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if c.attr.UID, c.attr.GID, c.attr.Mode, err = erofs.Root(f); err != nil {
		return err
	}
	if inherit && c.attr != c.parent.attr {
		if err := o.setRoot(f, c); err != nil {
			return err
		}
		c.attr = c.parent.attr
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	c.usage = snapshots.Usage{Size: st.Blocks * 512, Inodes: 1}
	f.Close()
	sum, err := erofs.Verity(file)
	c.verity = hex.EncodeToString(sum)
	return err
}

// setRoot gives the root of an image the looks of the parent's.
func (o *Overlay) setRoot(f *os.File, c *snapshot) error {
	data, err := atomicfile.Read(o.sumsFile(c.id), erofs.MaxSums)
	if err != nil {
		return err
	}
	sums, err := erofs.DecodeSums(data)
	if err != nil {
		return err
	}
	a := c.parent.attr
	if err := sums.SetRoot(f, a.UID, a.GID, a.Mode); err != nil {
		return err
	}
	o.images.mu.Lock()
	o.images.stale[c.id] = o.images.mounted[c.id]
	o.images.mu.Unlock()
	return atomicfile.Create(o.sumsFile(c.id), sums.Encode(), 0o600)
}

// convert writes the directory of a snapshot into an image.
func (o *Overlay) convert(ctx context.Context, c *snapshot) error {
	f, err := os.OpenFile(o.imageFile(c.id), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	sums, err := erofs.WriteTree(ctx, f, o.fsDir(c.id))
	if err != nil {
		return err
	}
	return atomicfile.Create(o.sumsFile(c.id), sums.Encode(), 0o600)
}
