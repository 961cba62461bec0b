package imageservice

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/nodeagent/nodeagent/imageservice/imageconfig"
	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CommitRequest asks for an image with one layer more than another.
type CommitRequest struct {
	// ImageID is the image below; it may be one that was removed and is
	// kept for its containers. Empty means none.
	ImageID string
	// Ref is the new image's name; empty means none.
	Ref string
	// Author, Comment and CreatedBy are of the step in its history.
	Author, Comment, CreatedBy string
	// Config changes the configuration; the changes, which are Dockerfile
	// instructions, come after it.
	Config  func(*imageconfig.Config)
	Changes []string
	// Layer writes the layer as a plain tar. It is called once, and not
	// held up by more than the disk: what it reads may change afterwards.
	Layer func(io.Writer) error
}

// Commit makes an image of another with a layer on top, and returns it.
func (s *Store) Commit(ctx context.Context, req CommitRequest) (Image, error) {
	img, err := s.commit(ctx, req)
	if err != nil {
		return Image{}, fmt.Errorf("commit image: %w", err)
	}
	s.tell(taggedAs(img, req.Ref)...)
	return img, nil
}

func (s *Store) commit(ctx context.Context, req CommitRequest) (Image, error) {
	tags, err := newTags(req.Ref)
	if err != nil {
		return Image{}, err
	}
	l := s.newLease()
	defer l.release(nil)
	doc := imageconfig.New(platforms.DefaultSpec())
	manifest, home := newManifest(), ""
	if req.ImageID != "" {
		base, err := s.base(l, req.ImageID)
		if err != nil {
			return Image{}, err
		}
		if doc, err = imageconfig.Parse(base.config); err != nil {
			return Image{}, err
		}
		manifest.Layers, home = base.doc.Layers, s.homeOf(base.rec)
	}
	if req.Config != nil {
		req.Config(&doc.Config)
	}
	if err := doc.Config.Apply(req.Changes); err != nil {
		return Image{}, err
	}
	return s.topped(ctx, l, topping{
		doc: doc, manifest: manifest, tags: tags, layer: req.Layer, hurry: true, home: home,
		step: ocispec.History{Author: req.Author, Comment: req.Comment, CreatedBy: req.CreatedBy},
	})
}

// base opens the image that another is made of.
func (s *Store) base(l *lease, id string) (*whole, error) {
	s.mu.Lock()
	rec := s.images[id]
	s.mu.Unlock()
	if rec == nil {
		return nil, fmt.Errorf("image %s: %w", id, errdefs.ErrNotFound)
	}
	return s.openWhole(l, rec, "")
}

// ImportRequest asks for an image made of one archive of files.
type ImportRequest struct {
	// Ref is the image's name; empty means none.
	Ref string
	// Changes are Dockerfile instructions.
	Changes []string
	Comment string
	// Platform is what is written into it; empty means the node's.
	Platform string
}

// ImportRoot makes an image of the tar of a root filesystem, plain or
// compressed by gzip or zstd.
func (s *Store) ImportRoot(ctx context.Context, r io.Reader, req ImportRequest) (Image, error) {
	img, err := s.importRoot(ctx, r, req)
	if err != nil {
		return Image{}, fmt.Errorf("import: %w", err)
	}
	s.tell(append(taggedAs(img, req.Ref), Change{Action: ActionImport, Image: img})...)
	return img, nil
}

func (s *Store) importRoot(ctx context.Context, r io.Reader, req ImportRequest) (Image, error) {
	tags, err := newTags(req.Ref)
	if err != nil {
		return Image{}, err
	}
	platform := platforms.DefaultSpec()
	if req.Platform != "" {
		if platform, err = platforms.Parse(req.Platform); err != nil {
			return Image{}, fmt.Errorf("platform %q: %w: %w", req.Platform, err, errdefs.ErrInvalidArgument)
		}
	}
	doc := imageconfig.New(platform)
	if err := doc.Config.Apply(req.Changes); err != nil {
		return Image{}, err
	}
	plain, err := unpack.Decompress(r)
	if err != nil {
		return Image{}, err
	}
	defer plain.Close()
	l := s.newLease()
	defer l.release(nil)
	return s.topped(ctx, l, topping{
		doc: doc, manifest: newManifest(), tags: tags, step: ocispec.History{Comment: req.Comment},
		layer: func(w io.Writer) error {
			n, err := io.Copy(w, io.LimitReader(plain, maxArchive+1))
			if err == nil && n > maxArchive {
				err = invalid("it unpacks to more than %d bytes", int64(maxArchive))
			}
			return err
		},
	})
}

// newTags are the tags of an image to be made.
func newTags(ref string) ([]string, error) {
	if ref == "" {
		return nil, nil
	}
	named, err := parseReference(ref)
	if err != nil {
		return nil, err
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, invalid("%s has a digest, and the image has another", ref)
	}
	return tagOf(named), nil
}

func newManifest() *ocispec.Manifest {
	return &ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
}

// topping is an image that lacks its topmost layer.
type topping struct {
	doc      *imageconfig.Document
	manifest *ocispec.Manifest
	step     ocispec.History
	layer    func(io.Writer) error
	// hurry writes the layer plain first, and compresses it when whoever
	// writes it has gone.
	hurry bool
	tags  []string
	// home names the snapshotter it goes to.
	home string

	// root is the manifest's descriptor, found and img what came of it.
	root  ocispec.Descriptor
	found *found
	img   Image
}

// topped makes the layer, and the image known. What a broken attempt leaves
// is garbage, which is collected: after a failure now, after a kill at the
// next start.
func (s *Store) topped(ctx context.Context, l *lease, t topping) (Image, error) {
	err := undo.Sequence{Name: "image.make", Timeout: time.Minute, Steps: []undo.Step{
		{Name: "layer", Do: func(context.Context) error { return s.topLayer(l, &t) }},
		{Name: "documents", Do: func(context.Context) error { return s.topDocuments(l, &t) }},
		{Name: "unpack", Do: func(ctx context.Context) error { return s.topUnpack(ctx, l, &t) }},
		{Name: "record", Do: func(context.Context) (err error) {
			t.img, err = s.add(t.found, t.tags, nil)
			return err
		}},
	}}.Run(ctx)
	if err != nil {
		s.wakeCollector()
	}
	return t.img, err
}

// topLayer writes the layer as a blob.
func (s *Store) topLayer(l *lease, t *topping) error {
	if t.hurry {
		plain, err := s.content.Spool()
		if err != nil {
			return err
		}
		defer plain.Close()
		buffered := bufio.NewWriterSize(plain, 256<<10)
		if err := t.layer(buffered); err != nil {
			return err
		}
		if err := buffered.Flush(); err != nil {
			return err
		}
		if _, err := plain.Seek(0, io.SeekStart); err != nil {
			return err
		}
		t.layer = func(w io.Writer) error {
			_, err := io.Copy(w, plain)
			return err
		}
	}
	desc, diffID, err := s.packed(l, t.layer)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	t.step.Created = &now
	t.doc.AddLayer(diffID, t.step)
	t.manifest.Layers = append(t.manifest.Layers[:len(t.manifest.Layers):len(t.manifest.Layers)], desc)
	return nil
}

// topDocuments writes configuration and manifest.
func (s *Store) topDocuments(l *lease, t *topping) error {
	config, err := t.doc.Encode()
	if err != nil {
		return err
	}
	t.manifest.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	raw, err := json.Marshal(t.manifest)
	if err != nil {
		return err
	}
	t.root = ocispec.Descriptor{MediaType: t.manifest.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	l.keepBlobs(t.manifest.Config.Digest, t.root.Digest)
	if err := s.content.Put(t.manifest.Config.Digest, config); err != nil {
		return err
	}
	return s.content.Put(t.root.Digest, raw)
}

// topUnpack unpacks the layer as if it had been pulled, with all checks.
func (s *Store) topUnpack(ctx context.Context, l *lease, t *topping) (err error) {
	if t.found, err = s.fetchImage(ctx, l, stored{s}, t.root, platforms.Format(t.doc.Image.Platform)); err != nil {
		return err
	}
	t.found.snapshotter = t.home
	_, err = s.unpackImage(ctx, l, t.found, &progress{})
	return err
}

// stored is an image whose new blobs are in the store already.
type stored struct{ s *Store }

// Open opens a blob.
func (s stored) Open(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return s.s.content.Open(desc.Digest)
}
