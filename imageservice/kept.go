package imageservice

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// Kept finds an image by its whole ID, and be it one that was removed and is
// kept for the containers made of it, which may be started again.
func (s *Store) Kept(_ context.Context, id string) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.images[id]
	if r == nil {
		return Image{}, fmt.Errorf("image %s: %w", id, errdefs.ErrNotFound)
	}
	return r.image(), nil
}
