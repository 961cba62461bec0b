package imageservice

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/nodeagent/nodeagent/imageservice/archive"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// nameAnnotation holds the full reference of an image in an OCI layout, as
// containerd and docker write it.
const nameAnnotation = "io.containerd.image.name"

// importable is one image of an archive.
type importable struct {
	source
	root ocispec.Descriptor
	// tags are normalised references.
	tags []reference.Named
	// foreign says that the manifest is not one somebody may ask for.
	foreign bool
}

// maxImages bounds the images of one archive, and the names of one image.
const maxImages = 1024

// Loaded is an image of an archive, with the names it had there.
type Loaded struct {
	Image Image
	// Tags are normalised references; there may be none.
	Tags []string
}

// Load loads the tar of an OCI layout or of docker save, plain or compressed.
// Images without a name get none, and can be found by ID. A platform chooses
// among those of an image; empty means the node's.
func (s *Store) Load(ctx context.Context, r io.Reader, platform string) ([]Loaded, error) {
	f, err := s.spool(r)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	a, err := archive.File(f)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer a.Close()
	loaded, err := s.loadAll(ctx, a, platform)
	for _, one := range loaded {
		s.tell(Change{Action: ActionLoad, Image: one.Image})
	}
	if err != nil {
		return loaded, fmt.Errorf("load: %w", err)
	}
	return loaded, nil
}

// loadAll loads the images of an archive. On an error those before it stay.
func (s *Store) loadAll(ctx context.Context, a archive.Archive, platform string) (loaded []Loaded, err error) {
	defer func() {
		if err != nil {
			s.wakeCollector() // of what the others brought
		}
	}()
	list, err := s.importables(a)
	if err != nil {
		return nil, err
	}
	skipped := 0
	for _, i := range list {
		img, err := s.importOne(ctx, i, platform)
		if errdefs.IsNotFound(err) && len(list) > 1 {
			// One of several platforms.
			skipped++
			continue
		}
		if err != nil {
			return loaded, err
		}
		loaded = addLoaded(loaded, img, i.tags)
	}
	if len(loaded) == 0 {
		if skipped > 0 {
			return nil, fmt.Errorf("none of its %d images is for %s: %w", skipped, cmp.Or(platform, platforms.DefaultString()), errdefs.ErrNotFound)
		}
		return nil, fmt.Errorf("no image in it: %w", errdefs.ErrNotFound)
	}
	return loaded, nil
}

// addLoaded notes an image, once whatever its names.
func addLoaded(list []Loaded, img Image, names []reference.Named) []Loaded {
	at := slices.IndexFunc(list, func(l Loaded) bool { return l.Image.ID == img.ID })
	if at < 0 {
		at, list = len(list), append(list, Loaded{})
	}
	list[at].Image = img
	for _, named := range names {
		list[at].Tags = union(list[at].Tags, tagOf(named))
	}
	return list
}

func (s *Store) importOne(ctx context.Context, i importable, platform string) (_ Image, err error) {
	l := s.newLease()
	defer func() { l.release(err) }()
	f, err := s.fetchImage(ctx, l, i, i.root, platform)
	if err != nil {
		return Image{}, err
	}
	if _, err := s.unpackImage(ctx, l, f, &progress{}); err != nil {
		return Image{}, err
	}
	var tags, digests []string
	for _, named := range i.tags {
		tags = append(tags, tagOf(named)...)
		if !i.foreign {
			digests = append(digests, digestOf(named, i.root.Digest)...)
		}
	}
	return s.add(f, tags, digests)
}

// importables lists what an archive holds, in whichever of the two forms.
func (s *Store) importables(a archive.Archive) ([]importable, error) {
	raw, err := readFile(a, "index.json")
	if err == nil {
		return ociImages(a, raw)
	}
	if !errdefs.IsNotFound(err) {
		return nil, err
	}
	raw, err = readFile(a, "manifest.json")
	if errdefs.IsNotFound(err) {
		return nil, invalid("neither index.json nor manifest.json is in it")
	}
	if err != nil {
		return nil, err
	}
	return dockerImages(a, raw)
}

func readFile(a archive.Archive, name string) ([]byte, error) {
	r, size, err := a.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxDocument {
		return nil, invalid("%s of %d bytes", name, size)
	}
	return io.ReadAll(io.LimitReader(r, maxDocument))
}

// ociImages reads the index of an OCI layout.
func ociImages(a archive.Archive, raw []byte) ([]importable, error) {
	doc, err := parseDocument(raw, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if len(doc.Manifests) > maxImages {
		return nil, invalid("%d images", len(doc.Manifests))
	}
	var list []importable
	for _, desc := range doc.Manifests {
		if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) || desc.Annotations["vnd.docker.reference.type"] != "" {
			continue
		}
		i := importable{source: layoutSource{a}, root: desc}
		name := desc.Annotations[nameAnnotation]
		if short := desc.Annotations[ocispec.AnnotationRefName]; name == "" && strings.ContainsAny(short, "/:") {
			name = short // only a tag otherwise, of nobody knows what
		}
		if name != "" {
			named, err := parseReference(name)
			if err != nil {
				return nil, err
			}
			i.tags = append(i.tags, named)
		}
		list = append(list, i)
	}
	return list, nil
}

// layoutSource opens blobs of an OCI layout.
type layoutSource struct{ a archive.Archive }

// Open opens a blob by the digest of a descriptor, which is valid.
func (l layoutSource) Open(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	r, _, err := l.a.Open("blobs/" + desc.Digest.Algorithm().String() + "/" + desc.Digest.Encoded())
	return r, err
}

// dockerImage is one entry of docker save's manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerImages makes a manifest for each image of a docker archive.
func dockerImages(a archive.Archive, raw []byte) ([]importable, error) {
	var entries []dockerImage
	if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, invalid("manifest.json: %v", err)
	}
	if len(entries) > maxImages {
		return nil, invalid("%d images", len(entries))
	}
	var list []importable
	known := map[string]ocispec.Descriptor{}
	for _, e := range entries {
		i, err := dockerImportable(a, e, known)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	return list, nil
}

func dockerImportable(a archive.Archive, e dockerImage, known map[string]ocispec.Descriptor) (importable, error) {
	src := dockerSource{a: a, known: known, names: map[digest.Digest]string{}, made: map[digest.Digest][]byte{}}
	if len(e.Layers) > maxLayers || len(e.RepoTags) > maxImages {
		return importable{}, invalid("image of %d layers and %d names", len(e.Layers), len(e.RepoTags))
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	var err error
	if manifest.Config, err = src.describe(e.Config, ocispec.MediaTypeImageConfig); err != nil {
		return importable{}, err
	}
	for _, name := range e.Layers {
		desc, err := src.describe(name, ocispec.MediaTypeImageLayer)
		if err != nil {
			return importable{}, err
		}
		manifest.Layers = append(manifest.Layers, desc)
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return importable{}, err
	}
	root := ocispec.Descriptor{MediaType: manifest.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	src.made[root.Digest] = raw
	i := importable{source: src, root: root, foreign: true}
	for _, tag := range e.RepoTags {
		named, err := parseReference(tag)
		if err != nil {
			return importable{}, err
		}
		i.tags = append(i.tags, named)
	}
	return i, nil
}

// dockerSource opens what a docker archive holds by digest.
type dockerSource struct {
	a archive.Archive
	// known are files of the archive that were hashed, for all its images.
	known map[string]ocispec.Descriptor
	names map[digest.Digest]string
	made  map[digest.Digest][]byte
}

// describe hashes a file of the archive. Layers may be compressed; the media
// type says so, for those who get the image from us.
func (d dockerSource) describe(name, mediaType string) (ocispec.Descriptor, error) {
	if desc, ok := d.known[mediaType+" "+name]; ok {
		d.names[desc.Digest] = name
		return desc, nil
	}
	desc, err := d.hash(name, mediaType)
	if err == nil {
		d.known[mediaType+" "+name] = desc
	}
	return desc, err
}

func (d dockerSource) hash(name, mediaType string) (ocispec.Descriptor, error) {
	r, size, err := d.a.Open(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer r.Close()
	var magic bytes.Buffer
	hash := digest.SHA256.Digester()
	n, err := io.Copy(hash.Hash(), io.TeeReader(io.LimitReader(r, 4), &magic))
	if err == nil {
		var rest int64
		rest, err = io.Copy(hash.Hash(), r)
		n += rest
	}
	if err != nil || n != size {
		return ocispec.Descriptor{}, fmt.Errorf("read %s: %d of %d bytes: %w", name, n, size, errors.Join(errdefs.ErrDataLoss, err))
	}
	if mediaType == ocispec.MediaTypeImageLayer {
		switch m := magic.Bytes(); {
		case bytes.HasPrefix(m, []byte{0x1f, 0x8b}):
			mediaType = ocispec.MediaTypeImageLayerGzip
		case bytes.Equal(m, []byte{0x28, 0xb5, 0x2f, 0xfd}):
			mediaType = ocispec.MediaTypeImageLayerZstd
		}
	}
	d.names[hash.Digest()] = name
	return ocispec.Descriptor{MediaType: mediaType, Digest: hash.Digest(), Size: size}, nil
}

// Open opens a file by its digest.
func (d dockerSource) Open(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if raw, ok := d.made[desc.Digest]; ok {
		return io.NopCloser(bytes.NewReader(raw)), nil
	}
	r, _, err := d.a.Open(d.names[desc.Digest])
	return r, err
}
