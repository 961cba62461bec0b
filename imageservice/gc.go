package imageservice

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
)

// collectEvery is how often garbage is looked for when nobody says that there
// is some: what broken pulls left, and removed images whose last container is
// gone. A pull tried again soon finds the blobs of the one that failed.
const collectEvery = 10 * time.Minute

// collector collects until Close.
func (s *Store) collector() {
	ticker := time.NewTicker(collectEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.collectNow:
		case <-ticker.C:
		}
		if err := s.Collect(s.ctx); err != nil && s.ctx.Err() == nil {
			logrus.WithError(err).Warn("cannot collect all image garbage; trying again later")
		}
	}
}

// wakeCollector has garbage collected soon.
func (s *Store) wakeCollector() {
	select {
	case s.collectNow <- struct{}{}:
	default:
	}
}

// Collect deletes removed images that no container needs any more, and blobs
// and layers that neither an image nor a pull under way refers to. It may run
// while pulls do.
func (s *Store) Collect(ctx context.Context) error {
	if err := s.dropRemoved(); err != nil {
		return err
	}
	return s.collect(ctx)
}

// dropRemoved forgets images that were kept for containers.
func (s *Store) dropRemoved() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	records := s.records()
	// In this order, see remove.
	used := s.used()
	for _, r := range records {
		if r.Removed && !used[r.ID.String()] {
			if err := s.forget(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) collect(ctx context.Context) error {
	if err := s.content.DropStale(); err != nil {
		return err
	}
	for _, dgst := range s.content.Digests() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.collectBlob(dgst); err != nil {
			return err
		}
	}
	return s.collectLayers(ctx)
}

// collectBlob deletes a blob unless somebody needs it. A lease is taken under
// the same lock, before its holder looks whether the blob is there.
func (s *Store) collectBlob(dgst digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs[dgst] > 0 {
		return nil
	}
	return s.content.Delete(dgst)
}

// collectLayers removes layers nobody needs, children before their parents.
func (s *Store) collectLayers(ctx context.Context) error {
	return s.each(func(_ string, in Layers) error { return s.collectFrom(ctx, in) })
}

func (s *Store) collectFrom(ctx context.Context, in Layers) error {
	garbage, err := s.unneededLayers(ctx, in)
	if err != nil {
		return err
	}
	for {
		var kept []string
		for _, name := range garbage {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := s.collectLayer(ctx, in, name)
			switch {
			case errdefs.IsFailedPrecondition(err):
				// Something is on top of it: a layer that goes next, or a
				// container's, which keeps it.
				kept = append(kept, name)
			case err != nil && !errdefs.IsNotFound(err):
				return err
			}
		}
		if len(kept) == 0 || len(kept) == len(garbage) {
			return nil
		}
		garbage = kept
	}
}

func (s *Store) collectLayer(ctx context.Context, in Layers, name string) error {
	s.removing.Lock()
	defer s.removing.Unlock()
	s.mu.Lock()
	needed := s.chains[digest.Digest(name)] > 0
	s.mu.Unlock()
	if needed {
		return nil
	}
	return in.Remove(ctx, name)
}

func (s *Store) unneededLayers(ctx context.Context, in Layers) ([]string, error) {
	var names []string
	err := in.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Labels[layerLabel] == "" || info.Kind != snapshots.KindCommitted {
			return nil
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.chains[digest.Digest(info.Name)] == 0 {
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	return names, nil
}

// dropUnpacking removes layers that were being unpacked when the last process
// ended.
func (s *Store) dropUnpacking(ctx context.Context) error {
	return s.each(func(_ string, in Layers) error {
		var keys []string
		err := in.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			if info.Kind == snapshots.KindActive && strings.HasPrefix(info.Name, unpackPrefix) {
				keys = append(keys, info.Name)
			}
			return nil
		})
		for _, key := range keys {
			err = errors.Join(err, in.Remove(ctx, key))
		}
		return err
	})
}

// demoteBlobs keeps blobs that no image refers to for pulls that go on: they
// were brought by one that the last process's end cut off. They are verified
// before they are used.
func (s *Store) demoteBlobs() error {
	for _, dgst := range s.content.Digests() {
		s.mu.Lock()
		needed := s.refs[dgst] > 0
		s.mu.Unlock()
		if needed {
			continue
		}
		if err := s.content.Demote(dgst); err != nil {
			return err
		}
	}
	return nil
}
