package imageservice

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/nodeagent/nodeagent/imageservice/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// source is where an image comes from: a registry or an archive.
type source interface {
	Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// ranger is a source that can begin in the middle.
type ranger interface {
	OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, length int64) (r io.ReadCloser, start int64, err error)
}

// opener is what the content store fetches a blob of a source by.
func opener(src source, desc ocispec.Descriptor) content.Opener {
	return func(ctx context.Context, offset, length int64) (content.Body, error) {
		if ranged, ok := src.(ranger); ok {
			r, start, err := ranged.OpenRange(ctx, desc, offset, length)
			return content.Body{ReadCloser: r, Offset: start}, err
		}
		r, err := src.Open(ctx, desc)
		return content.Body{ReadCloser: r}, err
	}
}

// found is an image whose documents are in the store.
type found struct {
	src source
	// blobs are all that belong to it, the documents included.
	blobs    []digest.Digest
	manifest ocispec.Descriptor
	id       digest.Digest
	config   *ocispec.Image
	layers   []ocispec.Descriptor
	diffIDs  []digest.Digest
	chainIDs []digest.Digest
	// ref is what the image was asked for by, if it was.
	ref string
	// snapshotter is the name of the one that the layers go to.
	snapshotter string
}

// fetchImage goes from a descriptor down to manifest and configuration of a
// platform.
func (s *Store) fetchImage(ctx context.Context, l *lease, src source, root ocispec.Descriptor, platform string) (*found, error) {
	m, err := matcher(platform)
	if err != nil {
		return nil, err
	}
	f := &found{src: src}
	doc, err := s.descend(ctx, l, f, root, m, maxIndexDepth)
	if err != nil {
		return nil, err
	}
	raw, err := s.document(ctx, l, f, *doc.Config)
	if err != nil {
		return nil, err
	}
	if f.config, err = parseConfig(raw); err != nil {
		return nil, err
	}
	if p := f.config.Platform; p.OS != "" && p.Architecture != "" && !m.Match(p) {
		return nil, fmt.Errorf("the image is for %s: %w", platforms.FormatAll(p), errdefs.ErrNotFound)
	}
	if len(doc.Layers) != len(f.config.RootFS.DiffIDs) {
		return nil, invalid("manifest of %d layers with a configuration of %d", len(doc.Layers), len(f.config.RootFS.DiffIDs))
	}
	f.id, f.layers, f.diffIDs = doc.Config.Digest, doc.Layers, f.config.RootFS.DiffIDs
	f.chainIDs = chainIDs(f.diffIDs)
	for _, layer := range f.layers {
		f.blobs = append(f.blobs, layer.Digest)
	}
	return f, nil
}

// descend goes through indexes to a manifest that fits.
func (s *Store) descend(ctx context.Context, l *lease, f *found, desc ocispec.Descriptor, m platforms.MatchComparer, depth int) (*document, error) {
	raw, err := s.document(ctx, l, f, desc)
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(raw, desc.MediaType)
	if err != nil {
		return nil, err
	}
	if !doc.isIndex() {
		f.manifest = desc
		return doc, nil
	}
	if depth == 0 {
		return nil, invalid("indexes in indexes")
	}
	fit := choose(doc, m)
	if len(fit) == 0 {
		return nil, fmt.Errorf("there is no image for this platform in the index: it has %s: %w", offered(doc), errdefs.ErrNotFound)
	}
	return s.descend(ctx, l, f, fit[0], m, depth-1)
}

// offered names the platforms of an index, as many as a person reads.
func offered(doc *document) string {
	const most = 8
	var all []string
	for _, m := range doc.Manifests {
		if m.Platform == nil || m.Platform.OS == "unknown" {
			continue
		}
		if len(all) == most {
			all = append(all, "…")
			break
		}
		all = append(all, fmt.Sprintf("%.64s", platforms.FormatAll(*m.Platform)))
	}
	if len(all) == 0 {
		return "none that says what it is for"
	}
	return strings.Join(all, ", ")
}

// document brings a manifest, index or configuration into the store, and
// returns it.
func (s *Store) document(ctx context.Context, l *lease, f *found, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxDocument {
		return nil, invalid("%s of %d bytes", desc.Digest, desc.Size)
	}
	if err := desc.Digest.Validate(); err != nil {
		return nil, invalid("digest %q", desc.Digest)
	}
	l.keepBlobs(desc.Digest)
	f.blobs = append(f.blobs, desc.Digest)
	if _, ok := s.content.Size(desc.Digest); ok {
		raw, err := s.content.Read(desc.Digest, maxDocument)
		if err == nil && int64(len(raw)) != desc.Size {
			return nil, invalid("%s has %d bytes in place of %d", desc.Digest, len(raw), desc.Size)
		}
		if !errdefs.IsNotFound(err) && !errdefs.IsDataLoss(err) {
			return raw, err
		}
		// Lost or damaged on the disk: it is fetched again.
		if err := s.content.Delete(desc.Digest); err != nil {
			return nil, err
		}
	}
	t, err := s.content.Fetch(desc, opener(f.src, desc))
	if err != nil {
		return nil, err
	}
	defer t.Release()
	if err := t.Wait(ctx); err != nil {
		return nil, err
	}
	return s.content.Read(desc.Digest, maxDocument)
}

// newRecord sums an image up whose layers are unpacked.
func (s *Store) newRecord(f *found) (*record, error) {
	r := &record{
		Version: recordVersion, ID: f.id, Manifest: f.manifest.Digest, Blobs: union(nil, f.blobs),
		DiffIDs: f.diffIDs, PulledAt: time.Now().UTC(), config: f.config, chainIDs: f.chainIDs,
		ContentSize: f.manifest.Size, Snapshotters: []string{s.recordedName(f.snapshotter)},
	}
	in, err := s.snapshotter(f.snapshotter)
	if err != nil {
		return nil, err
	}
	for _, layer := range f.layers {
		r.ContentSize += layer.Size
	}
	for _, chain := range f.chainIDs {
		usage, err := in.Usage(s.ctx, chain.String())
		if err != nil {
			return nil, fmt.Errorf("usage of layer %s: %w", chain, err)
		}
		r.Size += usage.Size
	}
	if size, ok := s.content.Size(f.id); ok {
		r.ContentSize += size
		// An image without layers takes its configuration.
		r.Size = max(r.Size, size)
	}
	return r, nil
}
