package imageservice

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Configuration gives an image's configuration as it was pulled, with the
// fields that the OCI's format does not know. id is an image ID.
func (s *Store) Configuration(ctx context.Context, id string) ([]byte, error) {
	img, err := s.Image(ctx, id)
	if err != nil {
		return nil, err
	}
	data, err := s.content.Read(digest.Digest(img.ID), maxDocument)
	if err != nil {
		return nil, fmt.Errorf("configuration of image %s: %w", img.ID, err)
	}
	return data, nil
}

// ManifestOf describes the manifest of an image. id is an image ID.
func (s *Store) ManifestOf(ctx context.Context, id string) (ocispec.Descriptor, error) {
	img, err := s.Image(ctx, id)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	data, err := s.content.Read(digest.Digest(img.Manifest), maxDocument)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("manifest of image %s: %w", img.ID, err)
	}
	var doc struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("manifest of image %s: %w", img.ID, err)
	}
	if doc.MediaType == "" {
		doc.MediaType = ocispec.MediaTypeImageManifest
	}
	return ocispec.Descriptor{MediaType: doc.MediaType, Digest: digest.Digest(img.Manifest), Size: int64(len(data))}, nil
}
