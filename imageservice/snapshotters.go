package imageservice

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"github.com/nodeagent/nodeagent/snapshotter"
)

// Layers is a snapshotter whose layers this package makes, side by side: each
// in an active snapshot without a parent, which it gets when it is committed.
type Layers interface {
	snapshots.Snapshotter
	// HoldLayer is the directory of one snapshot's own files, until release
	// is called.
	HoldLayer(key string) (dir string, release func(), err error)
	// LayerFile is where the EROFS image of a snapshot is, or is to be
	// written; empty when its files are in its directory.
	LayerFile(key string) (string, error)
	// SealLayer keeps the checksums of a layer that is unpacked, and
	// LayerSums returns them.
	SealLayer(key string, sums []byte) error
	LayerSums(name string) ([]byte, error)
	// CheckLayer fails with ErrDataLoss when a layer's files are gone, and
	// RestoreLayer brings them back from an active snapshot.
	CheckLayer(name string) error
	RestoreLayer(ctx context.Context, name, key string) error
	// Root is the directory all of them are below; empty when only another
	// program knows.
	Root() string
}

// serial is a snapshotter of another program, which wants its layers one on
// top of the other, and may have some of them without our doing.
type serial interface{ Serial() bool }

func isSerial(in Layers) bool {
	s, ok := in.(serial)
	return ok && s.Serial()
}

// snapshotter finds one by its name; the default one has none.
func (s *Store) snapshotter(name string) (Layers, error) {
	if name == "" {
		return s.layers, nil
	}
	in, ok := s.others[name]
	if !ok {
		return nil, fmt.Errorf("there is no snapshotter %q: %w", name, errdefs.ErrInvalidArgument)
	}
	return in, nil
}

// snapshotterName is the name that a snapshotter has here: the default one may
// be asked for by what the configuration calls it.
func (s *Store) snapshotterName(name string) string {
	if name == s.recordedName("") || name == "overlayfs" && s.recordedName("") == overlayName {
		return ""
	}
	return name
}

// overlayName is what the snapshotter is called whose name nobody says.
const overlayName = "overlay"

// recordedName is the name that an image's record has for one.
func (s *Store) recordedName(name string) string {
	switch {
	case name != "":
		return name
	case s.cfg.DefaultName != "":
		return s.cfg.DefaultName
	}
	return overlayName
}

// has tells whether a snapshotter has all layers of a list.
func has(ctx context.Context, in Layers, chains []digest.Digest) bool {
	for _, chain := range chains {
		_, err := in.Stat(ctx, chain.String())
		if errdefs.IsNotFound(err) {
			return false
		}
		if err != nil {
			// Another program that does not answer yet.
			return true
		}
	}
	return true
}

// snapshotters are the names of all, the default one first.
func (s *Store) snapshotters() []string {
	return append([]string{""}, slices.Sorted(maps.Keys(s.others))...)
}

// each calls f for all snapshotters, and stops at an error. That another
// program does not answer is no error, since it may never again.
func (s *Store) each(f func(name string, in Layers) error) error {
	for _, name := range s.snapshotters() {
		in, err := s.snapshotter(name)
		if err != nil {
			return err
		}
		err = f(name, in)
		if isSerial(in) && errdefs.IsUnavailable(err) {
			logrus.WithError(err).Warn("leaving out a snapshotter that does not answer")
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// prepareLayer makes the snapshot that a layer is unpacked into.
func prepareLayer(ctx context.Context, in Layers, key string) error {
	_, err := in.Prepare(ctx, key, "", snapshots.WithLabels(map[string]string{snapshotter.LabelLayer: "true"}))
	return err
}

// apply unpacks a layer, whose stream it closes, into the snapshot of a key,
// which seal makes whole.
func (s *Store) apply(ctx context.Context, in Layers, key string, r io.ReadCloser, lowers func(context.Context) ([]*unpack.Lower, error)) (unpack.Result, error) {
	file, err := in.LayerFile(key)
	if err != nil {
		r.Close()
		return unpack.Result{}, err
	}
	if file != "" {
		return s.applyImage(ctx, in, key, file, r, lowers)
	}
	dir, release, err := in.HoldLayer(key)
	if err != nil {
		r.Close()
		return unpack.Result{}, err
	}
	defer release()
	return unpack.Apply(ctx, r, unpack.Options{Dir: dir, Lowers: lowers, Limits: s.cfg.Limits})
}

// seal keeps the checksums of a directory that was unpacked.
func seal(in Layers, key string, res *unpack.Result) error {
	sums := res.Sums
	res.Sums = nil
	if sums == nil {
		return nil
	}
	return in.SealLayer(key, sums)
}

func (s *Store) applyImage(ctx context.Context, in Layers, key, file string, r io.ReadCloser, lowers func(context.Context) ([]*unpack.Lower, error)) (unpack.Result, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		r.Close()
		return unpack.Result{}, err
	}
	defer f.Close()
	res, sums, err := unpack.ApplyImage(ctx, r, unpack.ImageOptions{File: f, Lowers: lowers, Limits: s.cfg.Limits})
	if err != nil {
		return res, err
	}
	// Now, since the image must be whole to be mounted for layers above it.
	return res, in.SealLayer(key, sums.Encode())
}

// sync waits until blobs and layers are on the disk: one call for each
// filesystem.
func (s *Store) sync(in Layers) error {
	if err := s.content.Sync(); err != nil {
		return err
	}
	if in.Root() == "" {
		return nil // the program that has them sees to that
	}
	if one, err := s.oneFilesystem(in); one || err != nil {
		return err
	}
	d, err := os.Open(in.Root())
	if err != nil {
		return err
	}
	defer d.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(d.Fd())))
}

// aheadSync has the disk write big layers while others are unpacked, so that
// less is left for the sync that counts, after the last of them.
type aheadSync struct {
	s  *Store
	in Layers

	mu sync.Mutex
	// left are the layers not unpacked yet, unsynced the bytes of others.
	left     int
	unsynced int64
	syncing  bool
}

// aheadBytes is how much must have come together.
const aheadBytes = 64 << 20

// unpacked tells of one layer more, and may sync.
func (a *aheadSync) unpacked(bytes int64) {
	a.mu.Lock()
	a.left--
	a.unsynced += max(bytes, 0)
	if a.left == 0 || a.syncing || a.unsynced < aheadBytes {
		a.mu.Unlock()
		return
	}
	a.unsynced, a.syncing = 0, true
	a.mu.Unlock()
	_ = a.s.sync(a.in) // it is done again, and that time looked at
	a.mu.Lock()
	a.syncing = false
	a.mu.Unlock()
}

// layersOf are the snapshotters of a configuration.
func layersOf(cfg Config) (Layers, map[string]Layers, error) {
	layers, ok := cfg.Snapshotter.(Layers)
	if !ok {
		return nil, nil, fmt.Errorf("the snapshotter takes no layers: %w", errdefs.ErrInvalidArgument)
	}
	others := map[string]Layers{}
	for name, other := range cfg.Others {
		in, ok := other.(Layers)
		if !ok || name == "" {
			return nil, nil, fmt.Errorf("the snapshotter %q takes no layers: %w", name, errdefs.ErrInvalidArgument)
		}
		others[name] = in
	}
	return layers, others, nil
}
