package imageservice

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
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
