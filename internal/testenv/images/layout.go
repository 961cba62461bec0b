package images

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layout is an OCI image layout directory being written.
type layout struct {
	dir   string
	index ocispec.Index
}

// layer is a written layer: what the manifest says of it and the digest of its uncompressed bytes.
type layer struct {
	descriptor ocispec.Descriptor
	diffID     digest.Digest
}

func newLayout(dir string) (*layout, error) {
	if err := os.MkdirAll(filepath.Join(dir, ocispec.ImageBlobsDir, "sha256"), 0o755); err != nil {
		return nil, err
	}
	l := &layout{dir: dir}
	l.index.Versioned = specs.Versioned{SchemaVersion: 2}
	l.index.MediaType = ocispec.MediaTypeImageIndex
	return l, nil
}

// blobPath returns where a layout directory keeps a blob.
func blobPath(dir string, d digest.Digest) string {
	return filepath.Join(dir, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

func (l *layout) blob(mediaType string, content []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	return desc, os.WriteFile(blobPath(l.dir, desc.Digest), content, 0o644)
}

func (l *layout) document(mediaType string, value any) (ocispec.Descriptor, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return l.blob(mediaType, content)
}

// layer writes a tree as a gzipped layer.
func (l *layout) layer(t tree) (layer, error) {
	var compressed bytes.Buffer
	if err := t.write(&compressed); err != nil {
		return layer{}, err
	}
	plain, err := gzip.NewReader(bytes.NewReader(compressed.Bytes()))
	if err != nil {
		return layer{}, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, plain); err != nil {
		return layer{}, err
	}
	desc, err := l.blob(ocispec.MediaTypeImageLayerGzip, compressed.Bytes())
	diffID := digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum.Sum(nil)))
	return layer{descriptor: desc, diffID: diffID}, err
}

// image writes configuration and manifest of an image and enters it in the index under each reference.
func (l *layout) image(config ocispec.ImageConfig, layers []layer, refs []string) error {
	epoch := time.Unix(0, 0).UTC()
	image := ocispec.Image{Created: &epoch, Config: config}
	image.OS, image.Architecture = "linux", runtime.GOARCH
	image.RootFS.Type = "layers"
	manifest := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	manifest.Versioned = specs.Versioned{SchemaVersion: 2}
	for _, one := range layers {
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, one.diffID)
		manifest.Layers = append(manifest.Layers, one.descriptor)
	}
	var err error
	if manifest.Config, err = l.document(ocispec.MediaTypeImageConfig, image); err != nil {
		return fmt.Errorf("write configuration of image %v: %w", refs, err)
	}
	desc, err := l.document(ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return fmt.Errorf("write manifest of image %v: %w", refs, err)
	}
	for _, ref := range refs {
		entry := desc
		entry.Annotations = map[string]string{ocispec.AnnotationRefName: ref}
		l.index.Manifests = append(l.index.Manifests, entry)
	}
	return nil
}

// close writes the two files that make the directory a layout.
func (l *layout) close() error {
	marker, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.dir, ocispec.ImageLayoutFile), marker, 0o644); err != nil {
		return err
	}
	index, err := json.Marshal(l.index)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, ocispec.ImageIndexFile), index, 0o644)
}
