package imageservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/nodeagent/nodeagent/imageservice/registry"
	"github.com/nodeagent/nodeagent/imageservice/unpack"
)

// Unpack makes sure that the layers of an image are whole in a snapshotter:
// one that is not there is made of the image's blobs, which are fetched again
// when they are not there either. When all are, that costs a system call for
// each layer.
func (s *Store) Unpack(ctx context.Context, ref, name string) error {
	name = s.snapshotterName(name)
	in, err := s.snapshotter(name)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", ref, err)
	}
	r, err := s.lookup(ref)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if len(lostLayers(ctx, in, r.chainIDs)) == 0 {
		return nil
	}
	if err := s.heal(ctx, r, name, in); err != nil {
		return fmt.Errorf("unpack %s: %w", ref, err)
	}
	return nil
}

// lostLayers are the positions of layers that are not there, or whose files
// are not.
func lostLayers(ctx context.Context, in Layers, chains []digest.Digest) []int {
	var lost []int
	for i, chain := range chains {
		if in.CheckLayer(chain.String()) != nil {
			lost = append(lost, i)
		}
	}
	return lost
}

// heal brings lost layers back, one image at a time.
func (s *Store) heal(ctx context.Context, r *record, name string, in Layers) error {
	select {
	case s.healing <- struct{}{}:
		defer func() { <-s.healing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	l := s.newLease()
	defer l.release(nil)
	f, err := s.local(ctx, l, r)
	if err != nil {
		return err
	}
	f.snapshotter = name
	l.keepChains(f.chainIDs...)
	for _, i := range lostLayers(ctx, in, f.chainIDs) {
		if _, err := in.Stat(ctx, f.chainIDs[i].String()); errdefs.IsNotFound(err) {
			continue // unpackImage makes it
		}
		logrus.WithFields(logrus.Fields{"image": r.ID, "layer": f.chainIDs[i]}).Warn("the files of a layer are lost; unpacking it again")
		if err := s.restore(ctx, in, f, i, nil); err != nil {
			return err
		}
	}
	if _, err := s.unpackImage(ctx, l, f, &progress{}); err != nil {
		return err
	}
	if err := s.sync(in); err != nil {
		return err
	}
	return s.noteHome(r.ID, name)
}

// noteHome notes that a snapshotter has all layers of an image, which somebody
// may have removed meanwhile.
func (s *Store) noteHome(id digest.Digest, snapshotter string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	r, err := s.lookup(id.String())
	if err != nil || slices.Contains(r.Snapshotters, s.recordedName(snapshotter)) {
		return err
	}
	c := r.clone()
	c.Snapshotters = append(c.Snapshotters, s.recordedName(snapshotter))
	return s.put(c)
}

// local is an image that is here, of which parts may have to be fetched again.
func (s *Store) local(ctx context.Context, l *lease, r *record) (*found, error) {
	src := anywhere{s, r}
	raw, err := s.content.Read(r.Manifest, maxDocument)
	desc := ocispec.Descriptor{Digest: r.Manifest, Size: int64(len(raw))}
	if err != nil {
		remote, err := src.resolve(ctx)
		if err != nil {
			return nil, err
		}
		desc = remote.Desc
		remote.Close()
	}
	platform := ""
	if p := r.config.Platform; p.OS != "" && p.Architecture != "" {
		platform = platforms.Format(p)
	}
	return s.fetchImage(ctx, l, src, desc, platform)
}

// anywhere opens blobs of an image at the registries it is known to be in,
// with the credentials that this machine has for them.
type anywhere struct {
	s *Store
	r *record
}

// resolve finds the image's manifest.
func (a anywhere) resolve(ctx context.Context) (*registry.Source, error) {
	var errs []error
	for name := range repositories(a.r.names()) {
		named, err := parseReference(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ref, err := reference.WithDigest(reference.TrimNamed(named), a.r.Manifest)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		src, err := a.s.registry.Resolve(ctx, ref, registry.Credentials{})
		if err == nil {
			return src, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("the image is in no registry: %w", errdefs.ErrNotFound)
	}
	return nil, errors.Join(errs...)
}

// Open opens a blob, whose registry is closed with it.
func (a anywhere) Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	src, err := a.resolve(ctx)
	if err != nil {
		return nil, fmt.Errorf("fetch %s again: %w", desc.Digest, err)
	}
	if desc.Digest == src.Desc.Digest {
		desc = src.Desc
	}
	body, err := src.Open(ctx, desc)
	if err != nil {
		src.Close()
		return nil, err
	}
	return &withSource{body, src}, nil
}

type withSource struct {
	io.ReadCloser
	src *registry.Source
}

// Close ends the transfer and what it was part of.
func (w *withSource) Close() error {
	defer w.src.Close()
	return w.ReadCloser.Close()
}

// restore unpacks a layer again and mends the one that is there: the named
// files of a directory in place, or all of it when there are no names.
func (s *Store) restore(ctx context.Context, in Layers, f *found, i int, paths []string) error {
	s.mu.Lock()
	s.seq++
	key := unpackPrefix + "again-" + strconv.FormatUint(s.seq, 10)
	s.mu.Unlock()
	if err := prepareLayer(ctx, in, key); err != nil {
		return err
	}
	err := s.unpackAgain(ctx, in, f, i, key)
	if err == nil {
		err = s.mend(ctx, in, f.chainIDs[i].String(), key, paths)
	}
	if rerr := in.Remove(context.WithoutCancel(ctx), key); rerr != nil && !errdefs.IsNotFound(rerr) {
		err = errors.Join(err, rerr)
	}
	return err
}

// unpackAgain unpacks one layer from its blob. When that is not what it should
// be, it is fetched again, once.
func (s *Store) unpackAgain(ctx context.Context, in Layers, f *found, i int, key string) error {
	err := s.unpackInto(ctx, in, f, i, key)
	if !errdefs.IsDataLoss(err) && !errdefs.IsInvalidArgument(err) && !errdefs.IsNotFound(err) {
		return err
	}
	if derr := s.content.Delete(f.layers[i].Digest); derr != nil {
		return errors.Join(err, derr)
	}
	if err := in.Remove(ctx, key); err != nil {
		return err
	}
	if err := prepareLayer(ctx, in, key); err != nil {
		return err
	}
	return s.unpackInto(ctx, in, f, i, key)
}

func (s *Store) unpackInto(ctx context.Context, in Layers, f *found, i int, key string) error {
	desc := f.layers[i]
	t, err := s.content.Fetch(desc, opener(f.src, desc))
	if err != nil {
		return err
	}
	defer t.Release()
	r, err := t.Reader(ctx)
	if err != nil {
		return err
	}
	w := &work{s: s, in: in, f: f}
	for j := range i {
		w.slots = append(w.slots, &slot{chain: f.chainIDs[j]})
	}
	defer w.letGo()
	res, err := s.apply(ctx, in, key, r, w.below(i))
	if err == nil {
		err = seal(in, key, &res)
	}
	if err == nil {
		err = t.Wait(ctx)
	}
	if err == nil && res.DiffID != f.diffIDs[i] {
		err = wrongDiffID(res.DiffID, f.diffIDs[i])
	}
	if err != nil {
		return fmt.Errorf("layer %s: %w", desc.Digest, err)
	}
	return nil
}

// mend repairs a layer with the files of an active snapshot of the same
// content.
func (s *Store) mend(ctx context.Context, in Layers, name, key string, paths []string) error {
	if paths == nil {
		return in.RestoreLayer(ctx, name, key)
	}
	dir, release, err := in.HoldLayer(name)
	if err != nil {
		return err
	}
	defer release()
	good, releaseGood, err := in.HoldLayer(key)
	if err != nil {
		return err
	}
	defer releaseGood()
	return unpack.Repair(dir, good, paths)
}

// refetch brings a blob of an image that is not there any more. size is what
// it had.
func (s *Store) refetch(ctx context.Context, r *record, dgst digest.Digest, size int64) error {
	src := anywhere{s, r}
	if s.isDocument(r, dgst) {
		// It is asked for as one, by its own digest.
		other := *r
		other.Manifest = dgst
		src.r = &other
	}
	desc := ocispec.Descriptor{Digest: dgst, Size: size}
	t, err := s.content.Fetch(desc, opener(src, desc))
	if err != nil {
		return err
	}
	defer t.Release()
	return t.Wait(ctx)
}

// isDocument tells whether a blob of an image is an index or manifest: it is
// neither the configuration nor a layer.
func (s *Store) isDocument(r *record, dgst digest.Digest) bool {
	if dgst == r.ID {
		return false
	}
	raw, err := s.content.Read(r.Manifest, maxDocument)
	if err != nil {
		return false
	}
	doc, err := parseDocument(raw, "")
	if err != nil {
		return false
	}
	for _, layer := range doc.Layers {
		if layer.Digest == dgst {
			return false
		}
	}
	return true
}
