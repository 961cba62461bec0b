package imageservice

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/klauspost/compress/gzip"
	"github.com/nodeagent/nodeagent/imageservice/imageconfig"
	"github.com/nodeagent/nodeagent/imageservice/pack"
	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// whole is an image of which every blob can be read: what is given on to a
// registry or into an archive.
type whole struct {
	s   *Store
	l   *lease
	rec *record

	// mu guards what follows, while layers are worked on at one time.
	mu sync.Mutex
	// doc is the manifest, config the configuration it names.
	doc    ocispec.Manifest
	config []byte
	// changed says that the manifest is not the stored one any more, remade
	// that the configuration is not either.
	changed, remade bool
}

// openWhole reads an image's documents under a lease.
func (s *Store) openWhole(l *lease, rec *record, platform string) (*whole, error) {
	m, err := matcher(platform)
	if err != nil {
		return nil, err
	}
	if platform != "" && !m.Match(rec.config.Platform) {
		return nil, fmt.Errorf("the image is for %s: %w", platforms.FormatAll(rec.config.Platform), errdefs.ErrNotFound)
	}
	l.keepBlobs(rec.Blobs...)
	l.keepChains(rec.chainIDs...)
	w := &whole{s: s, l: l, rec: rec}
	raw, err := s.content.Read(rec.Manifest, maxDocument)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &w.doc); err != nil {
		return nil, invalid("manifest: %v", err)
	}
	if len(w.doc.Layers) != len(rec.DiffIDs) {
		return nil, invalid("manifest of %d layers with a configuration of %d", len(w.doc.Layers), len(rec.DiffIDs))
	}
	if w.doc.MediaType == "" {
		w.doc.MediaType = ocispec.MediaTypeImageManifest
	}
	w.config, err = s.content.Read(rec.ID, maxDocument)
	return w, err
}

// layer is a layer's blob, and whether it is in the store.
func (w *whole) layer(i int) (ocispec.Descriptor, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.s.content.Size(w.doc.Layers[i].Digest)
	return w.doc.Layers[i], ok
}

// replace puts another blob in a layer's place.
func (w *whole) replace(i int, desc ocispec.Descriptor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doc.Layers[i] = w.typed(desc)
	w.changed = true
}

// restore finds or makes a layer's blob that is not in the store, because the
// layer was there in another form when the image came.
func (w *whole) restore(ctx context.Context, i int) error {
	if desc, ok := w.s.otherForm(w.l, w.rec.DiffIDs[i]); ok {
		w.replace(i, desc)
		return nil
	}
	desc, diffID, err := w.s.remake(ctx, w.l, w.s.homeOf(w.rec), w.rec.chainIDs[i])
	if err != nil {
		return fmt.Errorf("make layer %s anew: %w", w.rec.DiffIDs[i], err)
	}
	w.replace(i, desc)
	if diffID == w.rec.DiffIDs[i] {
		return nil
	}
	// The files are the same, but not the archive they came in.
	w.mu.Lock()
	defer w.mu.Unlock()
	doc, err := imageconfig.Parse(w.config)
	if err != nil {
		return err
	}
	doc.Image.RootFS.DiffIDs[i] = diffID
	w.config, err = doc.Encode()
	w.remade = true
	return err
}

// typed gives a layer the media type that fits the manifest's family.
func (w *whole) typed(desc ocispec.Descriptor) ocispec.Descriptor {
	compression := "gzip"
	switch desc.MediaType {
	case ocispec.MediaTypeImageLayer, images.MediaTypeDockerSchema2Layer:
		compression = ""
	case ocispec.MediaTypeImageLayerZstd, images.MediaTypeDockerSchema2LayerZstd:
		compression = "zstd"
	}
	docker := w.doc.MediaType == images.MediaTypeDockerSchema2Manifest
	desc.MediaType = map[bool]map[string]string{
		true:  {"": images.MediaTypeDockerSchema2Layer, "gzip": images.MediaTypeDockerSchema2LayerGzip, "zstd": images.MediaTypeDockerSchema2LayerZstd},
		false: {"": ocispec.MediaTypeImageLayer, "gzip": ocispec.MediaTypeImageLayerGzip, "zstd": ocispec.MediaTypeImageLayerZstd},
	}[docker][compression]
	desc.Annotations, desc.URLs = nil, nil
	return desc
}

// isPlain tells a layer that is not compressed.
func isPlain(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageLayer || mediaType == images.MediaTypeDockerSchema2Layer
}

// compress compresses a plain layer, for those who get it from us.
func (w *whole) compress(i int) error {
	from, _ := w.layer(i)
	desc, err := w.s.compressed(w.l, func(out io.Writer) error {
		f, err := w.s.content.Open(from.Digest)
		if err != nil {
			return err
		}
		defer f.Close()
		return verifiedCopy(out, f, from)
	})
	if err != nil {
		return fmt.Errorf("compress layer %s: %w", from.Digest, err)
	}
	w.replace(i, desc)
	return nil
}

// seal stores what changed and returns manifest and configuration.
func (w *whole) seal() (manifest ocispec.Descriptor, raw []byte, err error) {
	if !w.changed {
		raw, err = w.s.content.Read(w.rec.Manifest, maxDocument)
		return ocispec.Descriptor{MediaType: w.doc.MediaType, Digest: w.rec.Manifest, Size: int64(len(raw))}, raw, err
	}
	if w.remade {
		w.doc.Config.Digest, w.doc.Config.Size = digest.FromBytes(w.config), int64(len(w.config))
		if err := w.put(w.doc.Config.Digest, w.config); err != nil {
			return manifest, nil, err
		}
	}
	if raw, err = json.Marshal(w.doc); err != nil {
		return manifest, nil, err
	}
	manifest = ocispec.Descriptor{MediaType: w.doc.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return manifest, raw, w.put(manifest.Digest, raw)
}

func (w *whole) put(dgst digest.Digest, data []byte) error {
	w.l.keepBlobs(dgst)
	return w.s.content.Put(dgst, data)
}

// otherForm finds a blob that unpacks to a layer, among those of all images.
// It is leased.
func (s *Store) otherForm(l *lease, diffID digest.Digest) (ocispec.Descriptor, bool) {
	for _, r := range s.records() {
		i := slices.Index(r.DiffIDs, diffID)
		if i < 0 {
			continue
		}
		raw, err := s.content.Read(r.Manifest, maxDocument)
		if err != nil {
			continue
		}
		var doc ocispec.Manifest
		if err := json.Unmarshal(raw, &doc); err != nil || i >= len(doc.Layers) {
			continue
		}
		l.keepBlobs(doc.Layers[i].Digest)
		if s.unpacksTo(doc.Layers[i], diffID) {
			return doc.Layers[i], true
		}
	}
	return ocispec.Descriptor{}, false
}

// unpacksTo tells whether a blob is there and has a diffID. What a manifest says
// of a layer that was there already was never tried.
func (s *Store) unpacksTo(desc ocispec.Descriptor, diffID digest.Digest) bool {
	f, err := s.content.Open(desc.Digest)
	if err != nil {
		return false
	}
	defer f.Close()
	plain, err := unpack.Decompress(f)
	if err != nil {
		return false
	}
	defer plain.Close()
	verifier := diffID.Verifier()
	_, err = io.Copy(verifier, plain)
	return err == nil && verifier.Verified()
}

// remake writes a layer's files as a compressed blob: always the same for the
// same files.
func (s *Store) remake(ctx context.Context, l *lease, snapshotter string, chain digest.Digest) (desc ocispec.Descriptor, diffID digest.Digest, err error) {
	in, err := s.snapshotter(snapshotter)
	if err != nil {
		return desc, "", err
	}
	dir, release, err := in.HoldLayer(chain.String())
	if err != nil {
		return desc, "", err
	}
	defer release()
	root, err := os.Open(dir)
	if err != nil {
		return desc, "", err
	}
	defer root.Close()
	return s.packed(l, func(out io.Writer) error { return pack.Tree(ctx, out, root, pack.Options{Layer: true}) })
}

// homeOf names a snapshotter that has an image's layers, the default one
// first.
func (s *Store) homeOf(rec *record) string {
	names := slices.Clone(rec.Snapshotters)
	for i := range names {
		names[i] = s.snapshotterName(names[i])
	}
	if len(names) == 0 || slices.Contains(names, "") {
		return ""
	}
	return names[0]
}

// packed stores the plain tar that write writes, compressed, and tells its
// diffID.
func (s *Store) packed(l *lease, write func(io.Writer) error) (desc ocispec.Descriptor, diffID digest.Digest, err error) {
	hash := sha256.New()
	desc, err = s.compressed(l, func(out io.Writer) error { return write(io.MultiWriter(out, hash)) })
	return desc, digest.NewDigest(digest.SHA256, hash), err
}

// compressionLevel is where a layer takes half the time of the default and a
// few percent more space.
const compressionLevel = 2

// compressed stores what write writes, compressed by gzip.
func (s *Store) compressed(l *lease, write func(io.Writer) error) (ocispec.Descriptor, error) {
	dgst, size, err := s.content.Produce(func(out io.Writer) error {
		z, err := gzip.NewWriterLevel(out, compressionLevel)
		if err != nil {
			return err
		}
		if err := write(z); err != nil {
			return err
		}
		return z.Close()
	}, func(d digest.Digest) { l.keepBlobs(d) })
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: dgst, Size: size}, err
}

// verifiedCopy copies a blob and finds out whether it is the right one: what
// lay on a disk may have changed.
func verifiedCopy(to io.Writer, from io.Reader, desc ocispec.Descriptor) error {
	verifier := desc.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(to, verifier), from)
	if err != nil {
		return err
	}
	if n != desc.Size || !verifier.Verified() {
		return fmt.Errorf("blob %s is damaged: %w", desc.Digest, errdefs.ErrDataLoss)
	}
	return nil
}
