package bigimages

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sizeAnnotation holds an image's Size in the index.
const sizeAnnotation = "test.bench.size"

// Size is what an image or layer has.
type Size struct {
	Layers, Files     int
	Bytes, Compressed int64
}

// layer is a written layer.
type layer struct {
	digest, diffID digest.Digest
	size           Size
}

// layout is an OCI image layout being written.
type layout struct {
	dir   string
	index ocispec.Index
}

func newLayout(dir string) (*layout, error) {
	l := &layout{dir: dir}
	l.index.Versioned = specs.Versioned{SchemaVersion: 2}
	l.index.MediaType = ocispec.MediaTypeImageIndex
	return l, os.MkdirAll(filepath.Join(dir, ocispec.ImageBlobsDir, "sha256"), 0o755)
}

func (l *layout) path(d digest.Digest) string {
	return filepath.Join(l.dir, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// document writes a JSON blob.
func (l *layout) document(mediaType string, value any) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return desc, os.WriteFile(l.path(desc.Digest), raw, 0o644)
}

// image writes an image and enters it in the index.
func (l *layout) image(ref string, contents []content) error {
	epoch := time.Unix(0, 0).UTC()
	config := ocispec.Image{Created: &epoch}
	config.OS, config.Architecture, config.RootFS.Type = "linux", runtime.GOARCH, "layers"
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	var total Size
	for _, c := range contents {
		one, err := l.layer(c)
		if err != nil {
			return err
		}
		total.Layers, total.Files = total.Layers+1, total.Files+one.size.Files
		total.Bytes, total.Compressed = total.Bytes+one.size.Bytes, total.Compressed+one.size.Compressed
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, one.diffID)
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerGzip, Digest: one.digest, Size: one.size.Compressed,
		})
	}
	var err error
	if manifest.Config, err = l.document(ocispec.MediaTypeImageConfig, config); err != nil {
		return err
	}
	entry, err := l.document(ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return err
	}
	size, err := json.Marshal(total)
	if err != nil {
		return err
	}
	entry.Annotations = map[string]string{ocispec.AnnotationRefName: ref, sizeAnnotation: string(size)}
	l.index.Manifests = append(l.index.Manifests, entry)
	return nil
}

// close makes the folder a layout.
func (l *layout) close() error {
	for name, value := range map[string]any{
		ocispec.ImageLayoutFile: ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}, ocispec.ImageIndexFile: l.index,
	} {
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(l.dir, name), raw, 0o644); err != nil {
			return err
		}
	}
	return nil
}
