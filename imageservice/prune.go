package imageservice

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Pruned is one image that was removed.
type Pruned struct {
	ID string
	// Names are the tags and digests it had.
	Names []string
}

// Prune removes images that no container needs and that are not pinned: those
// without a tag, or with all set any. wanted, when not nil, says which of
// them. It returns what went and how many bytes that gave back.
func (s *Store) Prune(ctx context.Context, all bool, wanted func(Image) bool) ([]Pruned, int64, error) {
	before, err := s.FilesystemUsage(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("prune images: %w", err)
	}
	pruned, err := s.prune(all, wanted)
	if err == nil {
		err = s.Collect(ctx)
	}
	if err != nil {
		return pruned, 0, fmt.Errorf("prune images: %w", err)
	}
	after, err := s.FilesystemUsage(ctx)
	if err != nil {
		return pruned, 0, fmt.Errorf("prune images: %w", err)
	}
	return pruned, max(0, int64(before.Bytes)-int64(after.Bytes)), nil
}

func (s *Store) prune(all bool, wanted func(Image) bool) ([]Pruned, error) {
	used := s.used()
	s.changing.Lock()
	defer s.changing.Unlock()
	list := s.records()
	slices.SortFunc(list, func(a, b *record) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	var pruned []Pruned
	for _, r := range list {
		if r.Removed || r.Pinned || r.pinned || used[r.ID.String()] || !all && len(r.Tags) > 0 || wanted != nil && !wanted(r.image()) {
			continue
		}
		if err := s.remove(r); err != nil {
			return pruned, err
		}
		s.tell(removedFrom(r, r.names(), true)...)
		pruned = append(pruned, Pruned{ID: r.ID.String(), Names: r.names()})
	}
	return pruned, nil
}
