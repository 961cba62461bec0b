package imageservice

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"github.com/nodeagent/nodeagent/snapshotter"
)

// Labels by which containerd tells snapshotters what they may fetch by
// themselves.
const (
	refLabel      = "containerd.io/snapshot/cri.image-ref"
	manifestLabel = "containerd.io/snapshot/cri.manifest-digest"
	digestLabel   = "containerd.io/snapshot/cri.layer-digest"
	layersLabel   = "containerd.io/snapshot/cri.image-layers"
	// maxLabel is how long a label may be together with its value.
	maxLabel = 4096
)

// unpackSerially makes the layers of an image in the snapshotter of another
// program: each on top of the one below. Those that the program says it has,
// as one does that fetches files when they are read, are not transferred.
func (s *Store) unpackSerially(ctx context.Context, in Layers, f *found, p *progress) (added bool, err error) {
	for i := range f.layers {
		made, err := s.serialLayer(ctx, in, f, i, p)
		added = added || made
		if err != nil {
			return added, fmt.Errorf("layer %s: %w", f.layers[i].Digest, err)
		}
	}
	return added, nil
}

func (s *Store) serialLayer(ctx context.Context, in Layers, f *found, i int, p *progress) (made bool, err error) {
	desc, chain, parent := f.layers[i], f.chainIDs[i].String(), ""
	if i > 0 {
		parent = f.chainIDs[i-1].String()
	}
	if _, err := in.Stat(ctx, chain); err == nil {
		p.tell(desc, "Already exists", 0)
		return false, nil
	}
	p.tell(desc, "Pulling fs layer", 0)
	key, mounts, err := s.prepareSerial(ctx, in, parent, f.serialLabels(i))
	if errdefs.IsAlreadyExists(err) {
		if _, err := in.Stat(ctx, chain); err != nil {
			return false, err
		}
		p.tell(desc, "Pull complete", desc.Size)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if err = s.fillSerial(ctx, f, i, mounts, p); err == nil {
		err = in.Commit(ctx, chain, key, snapshots.WithLabels(f.serialLabels(i)))
	}
	if err == nil || errdefs.IsAlreadyExists(err) {
		p.tell(desc, "Pull complete", desc.Size)
	}
	if err != nil {
		rerr := in.Remove(context.WithoutCancel(ctx), key)
		if errdefs.IsAlreadyExists(err) {
			// Another pull was faster.
			return true, rerr
		}
		return false, errors.Join(err, rerr)
	}
	return true, nil
}

// prepareSerial makes an active snapshot.
func (s *Store) prepareSerial(ctx context.Context, in Layers, parent string, labels map[string]string) (key string, mounts []mount.Mount, err error) {
	s.mu.Lock()
	s.seq++
	key = unpackPrefix + "on-top-" + strconv.FormatUint(s.seq, 10)
	s.mu.Unlock()
	mounts, err = in.Prepare(ctx, key, parent, snapshots.WithLabels(labels))
	return key, mounts, err
}

// fillSerial fetches a layer and unpacks it into the directory that the mounts
// of its snapshot write to.
func (s *Store) fillSerial(ctx context.Context, f *found, i int, mounts []mount.Mount, p *progress) error {
	dir, lowers, err := snapshotter.Dirs(mounts)
	if err != nil {
		return err
	}
	desc := f.layers[i]
	t, err := s.content.Fetch(desc, opener(f.src, desc))
	if err != nil {
		return err
	}
	defer t.Release()
	t.Watch(func(n int64) { p.tell(desc, "Downloading", n) })
	r, err := t.Reader(ctx)
	if err != nil {
		return blame(ctx, t, err)
	}
	opts := unpack.Options{Dir: dir, Limits: s.cfg.Limits}
	if i > 0 {
		below, err := unpack.OpenLowers(lowers)
		if err != nil {
			r.Close()
			return err
		}
		defer unpack.CloseLowers(below)
		opts.Lowers = func(context.Context) ([]*unpack.Lower, error) { return below, nil }
	}
	res, err := unpack.Apply(ctx, r, opts)
	if err != nil {
		return blame(ctx, t, err)
	}
	if err := t.Wait(ctx); err != nil {
		return err
	}
	if res.DiffID != f.diffIDs[i] {
		return blame(ctx, t, wrongDiffID(res.DiffID, f.diffIDs[i]))
	}
	p.tell(desc, "Extracting", desc.Size)
	return nil
}

// serialLabels tell the program what a layer is, as containerd does: its own
// annotations for snapshotters, the image, and this layer and those above.
func (f *found) serialLabels(i int) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, snapshots.FilterInheritedLabels(f.layers[i].Annotations))
	maps.Copy(labels, map[string]string{
		snapshots.LabelSnapshotRef: f.chainIDs[i].String(),
		layerLabel:                 f.diffIDs[i].String(),
		manifestLabel:              f.manifest.Digest.String(),
		digestLabel:                f.layers[i].Digest.String(),
		layersLabel:                layerList(f, i),
	})
	if f.ref != "" {
		labels[refLabel] = f.ref
	}
	return labels
}

// layerList are the digests of a layer and of those above it, as many as fit.
func layerList(f *found, i int) string {
	var list []string
	room := maxLabel - len(layersLabel)
	for _, desc := range f.layers[i:] {
		if room -= len(desc.Digest) + len(","); room < 0 {
			break
		}
		list = append(list, desc.Digest.String())
	}
	return strings.Join(list, ",")
}
