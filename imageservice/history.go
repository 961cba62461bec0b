package imageservice

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
)

// Step is one step in how an image came about.
type Step struct {
	// Created is zero when it is not told.
	Created            time.Time
	CreatedBy, Comment string
	// Size is what the step's layer takes unpacked, in bytes; zero for one
	// that changed no files.
	Size int64
}

// History tells how an image came about, the latest step first.
func (s *Store) History(ctx context.Context, ref string) (Image, []Step, error) {
	rec, err := s.lookup(ref)
	if err != nil {
		return Image{}, nil, fmt.Errorf("history: %w", err)
	}
	in, err := s.snapshotter(s.homeOf(rec))
	if err != nil {
		return Image{}, nil, fmt.Errorf("history of image %s: %w", rec.ID, err)
	}
	var steps []Step
	// Layers that nobody tells of are the lowest, as when an image is made of
	// one without a history.
	layer := len(rec.chainIDs)
	for _, h := range rec.config.History {
		if !h.EmptyLayer {
			layer--
		}
	}
	layer = max(layer, 0)
	for _, h := range rec.config.History {
		step := Step{CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			step.Created = *h.Created
		}
		if !h.EmptyLayer && layer < len(rec.chainIDs) {
			usage, err := in.Usage(ctx, rec.chainIDs[layer].String())
			if err != nil && !errdefs.IsNotFound(err) {
				return Image{}, nil, fmt.Errorf("history of image %s: %w", rec.ID, err)
			}
			step.Size = usage.Size
			layer++
		}
		steps = append(steps, step)
	}
	slices.Reverse(steps)
	return rec.image(), steps, nil
}
