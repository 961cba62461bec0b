package imageservice

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/nodeagent/nodeagent/imageservice/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxDocument bounds manifests, indexes and configurations, in bytes.
	maxDocument = 8 << 20
	// maxLayers is what overlayfs takes.
	maxLayers = 500
	// maxManifests bounds the entries of an index.
	maxManifests = 4096
	// maxIndexDepth bounds indexes in indexes.
	maxIndexDepth = 3
)

// document is an index or a manifest: one of Manifests and Layers is there.
type document struct {
	MediaType string               `json:"mediaType"`
	Manifests []ocispec.Descriptor `json:"manifests"`
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	// FSLayers are those of Docker's schema 1.
	FSLayers json.RawMessage `json:"fsLayers"`
}

// isIndex tells an index from a manifest.
func (d *document) isIndex() bool { return d.Config == nil }

// parseDocument reads what a descriptor of that media type led to. A document
// that could be taken for both an index and a manifest is refused: whoever
// verified it may have seen another image in it.
func parseDocument(raw []byte, mediaType string) (*document, error) {
	var d document
	if len(raw) > maxDocument {
		return nil, invalid("a manifest of more than %d bytes", maxDocument)
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, invalid("manifest: %v", err)
	}
	switch {
	case d.FSLayers != nil:
		return nil, invalid("manifest of Docker's schema 1, which no registry should serve any more")
	case d.Manifests != nil && (d.Layers != nil || d.Config != nil):
		return nil, invalid("manifest with both manifests and layers")
	case d.Manifests == nil && d.Config == nil:
		return nil, invalid("neither an index nor an image manifest")
	}
	for _, mt := range []string{d.MediaType, mediaType} {
		if images.IsIndexType(mt) && !d.isIndex() || images.IsManifestType(mt) && d.isIndex() {
			return nil, invalid("manifest is not what its media type %s says", mt)
		}
	}
	if len(d.Manifests) > maxManifests {
		return nil, invalid("index of %d manifests", len(d.Manifests))
	}
	if d.isIndex() {
		return &d, checkDescriptors(d.Manifests)
	}
	return &d, d.checkImage()
}

// checkImage checks a manifest's parts.
func (d *document) checkImage() error {
	if len(d.Layers) > maxLayers {
		return invalid("image of %d layers", len(d.Layers))
	}
	if !images.IsConfigType(d.Config.MediaType) && d.Config.MediaType != "application/octet-stream" && d.Config.MediaType != "" {
		return invalid("not a container image: its configuration is %s", d.Config.MediaType)
	}
	if d.Config.Size > maxDocument {
		return invalid("configuration of %d bytes", d.Config.Size)
	}
	for i := range d.Layers {
		if mt := d.Layers[i].MediaType; !images.IsLayerType(mt) {
			return invalid("layer of media type %s", mt)
		}
		// Where else the bytes might be is nobody's business.
		d.Layers[i].URLs = nil
	}
	return checkDescriptors(append(slices.Clone(d.Layers), *d.Config))
}

func checkDescriptors(list []ocispec.Descriptor) error {
	for _, desc := range list {
		if err := desc.Digest.Validate(); err != nil {
			return invalid("digest %q: %v", desc.Digest, err)
		}
		// Sums of sizes must not overflow either.
		if desc.Size < 0 || desc.Size > content.MaxBlob {
			return invalid("size %d of %s", desc.Size, desc.Digest)
		}
	}
	return nil
}

// parseConfig reads an image configuration.
func parseConfig(raw []byte) (*ocispec.Image, error) {
	img := new(ocispec.Image)
	if len(raw) > maxDocument {
		return nil, invalid("a configuration of more than %d bytes", maxDocument)
	}
	if err := json.Unmarshal(raw, img); err != nil {
		return nil, invalid("configuration: %v", err)
	}
	if len(img.RootFS.DiffIDs) > maxLayers {
		return nil, invalid("image of %d layers", len(img.RootFS.DiffIDs))
	}
	for _, d := range img.RootFS.DiffIDs {
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
			return nil, invalid("diffID %q", d)
		}
	}
	return img, nil
}

// choose picks the manifests of an index that fit, the best first.
// Attestations and the like, which run nowhere, are left out.
func choose(index *document, m platforms.MatchComparer) []ocispec.Descriptor {
	var fit []ocispec.Descriptor
	for _, desc := range index.Manifests {
		switch {
		case desc.Annotations["vnd.docker.reference.type"] != "":
		case !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType):
		case desc.Platform == nil || m.Match(*desc.Platform):
			fit = append(fit, desc)
		}
	}
	slices.SortStableFunc(fit, func(a, b ocispec.Descriptor) int {
		switch {
		case a.Platform == nil || b.Platform == nil:
			return boolCompare(a.Platform == nil, b.Platform == nil)
		case m.Less(*a.Platform, *b.Platform):
			return -1
		case m.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return fit
}

// boolCompare puts false first.
func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// matcher is for a platform's name; empty is the host's.
func matcher(platform string) (platforms.MatchComparer, error) {
	if platform == "" {
		return platforms.Default(), nil
	}
	p, err := platforms.Parse(platform)
	if err != nil {
		return nil, fmt.Errorf("platform %q: %w: %w", platform, err, errdefs.ErrInvalidArgument)
	}
	return platforms.Only(p), nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
