package imageservice

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/nodeagent/nodeagent/imageservice/content"
	"github.com/nodeagent/nodeagent/imageservice/registry"
)

// pullKey says which pulls are the same: those that ask for the same with
// the same credentials. Others are not let in on what they might not see.
type pullKey struct {
	ref, platform, snapshotter string
	auth                       [sha256.Size]byte
}

// pull is one transfer for all who ask for the same. It runs in a goroutine
// of the store and ends early when the last of them gives up.
type pull struct {
	ref   reference.Named
	req   PullRequest
	creds registry.Credentials

	cancel context.CancelFunc
	done   chan struct{}
	// res and err are set before done is closed.
	res     PullResult
	err     error
	started time.Time
	// waiters is guarded by Store.mu.
	waiters int
	progress
}

// Pull brings an image, or finds that it is there already. Callers who ask
// for the same at one time share one transfer, each for as long as its own
// context allows.
func (s *Store) Pull(ctx context.Context, req PullRequest) (PullResult, error) {
	ref, err := parseReference(req.Ref)
	if err != nil {
		return PullResult{}, fmt.Errorf("pull: %w", err)
	}
	creds, err := credentials(req.Auth)
	if err != nil {
		return PullResult{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	req.Snapshotter = s.snapshotterName(req.Snapshotter)
	if _, err := s.snapshotter(req.Snapshotter); err != nil {
		return PullResult{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	if _, err := matcher(req.Platform); err != nil {
		return PullResult{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	p := s.join(ref, req, creds)
	if p == nil {
		return PullResult{}, fmt.Errorf("pull %s: closed: %w", ref, errdefs.ErrUnavailable)
	}
	defer p.subscribe(req.Progress)()
	defer s.leave(p)
	select {
	case <-p.done:
	case <-ctx.Done():
		return PullResult{}, fmt.Errorf("pull %s: %w", ref, ctx.Err())
	}
	if p.err != nil {
		return PullResult{}, fmt.Errorf("pull %s: %w", ref, p.err)
	}
	s.tell(Change{Action: ActionPull, Image: p.res.Image, Ref: ref.String()})
	return p.res, nil
}

func keyOf(ref reference.Named, req PullRequest, c registry.Credentials) pullKey {
	return pullKey{ref.String(), req.Platform, req.Snapshotter, sha256.Sum256(fmt.Appendf(nil, "%q", []string{
		c.Username, c.Password, c.IdentityToken, c.RegistryToken, c.ServerAddress,
	}))}
}

// join finds the pull under way, or starts one. A closed store has none.
func (s *Store) join(ref reference.Named, req PullRequest, creds registry.Credentials) *pull {
	key := keyOf(ref, req, creds)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil
	}
	if p, ok := s.pulls[key]; ok {
		p.waiters++
		return p
	}
	p := &pull{ref: ref, req: req, creds: creds, done: make(chan struct{}), started: time.Now(), waiters: 1}
	ctx, cancel := context.WithCancel(s.ctx)
	p.cancel = cancel
	s.pulls[key] = p
	s.running.Go(func() {
		defer cancel()
		p.res, p.err = s.pull(ctx, p)
		s.metrics.pulled(p.res, p.err, time.Since(p.started))
		s.mu.Lock()
		if s.pulls[key] == p {
			delete(s.pulls, key)
		}
		s.mu.Unlock()
		close(p.done)
	})
	return p
}

// leave ends a pull that nobody waits for.
func (s *Store) leave(p *pull) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.waiters--; p.waiters > 0 {
		return
	}
	p.cancel()
	// Who comes now starts anew, and does not get the end of this one.
	for key, other := range s.pulls {
		if other == p {
			delete(s.pulls, key)
		}
	}
}

func credentials(a Auth) (registry.Credentials, error) {
	c := registry.Credentials{
		Username: a.Username, Password: a.Password, ServerAddress: a.ServerAddress,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}
	if a.Auth != "" && a.Username == "" && a.Password == "" {
		var err error
		if c.Username, c.Password, err = registry.ParseBasic(a.Auth); err != nil {
			return c, err
		}
	}
	return c, nil
}

// pull is the work itself.
func (s *Store) pull(ctx context.Context, p *pull) (PullResult, error) {
	src, err := s.registry.Resolve(ctx, p.ref, p.creds)
	if err != nil {
		return PullResult{}, err
	}
	defer src.Close()
	for round := 1; ; round++ {
		res, err := s.pullFrom(ctx, p, src)
		if err == nil || round >= pullRounds || !another(src, err) {
			return res, err
		}
	}
}

// pullRounds is how often a pull begins anew because a blob arrived damaged.
const pullRounds = 4

// another tells whether a blob that arrived damaged may come right: from
// another host, or without what an earlier transfer had left of it.
func another(src *registry.Source, err error) bool {
	var damaged *content.DamagedError
	if !errors.As(err, &damaged) {
		return false
	}
	return damaged.Resumed || src.Distrust(damaged.Digest)
}

// pullFrom is pull with the source known.
func (s *Store) pullFrom(ctx context.Context, p *pull, src *registry.Source) (_ PullResult, err error) {
	l := s.newLease()
	defer func() { l.release(err) }()
	found, err := s.fetchImage(ctx, l, src, src.Desc, p.req.Platform)
	if err != nil {
		return PullResult{}, err
	}
	found.snapshotter, found.ref = p.req.Snapshotter, p.ref.String()
	added, err := s.unpackImage(ctx, l, found, &p.progress)
	if err != nil {
		return PullResult{}, err
	}
	img, err := s.add(found, tagOf(p.ref), digestOf(p.ref, src.Desc.Digest))
	if err != nil {
		return PullResult{}, err
	}
	return PullResult{Image: img, Digest: src.Desc.Digest.String(), New: added}, nil
}

// add makes an image known under its names, durably. Its blobs and layers
// are there, and leased.
func (s *Store) add(f *found, tags, digests []string) (Image, error) {
	r, err := s.newRecord(f)
	if err != nil {
		return Image{}, err
	}
	in, err := s.snapshotter(f.snapshotter)
	if err != nil {
		return Image{}, err
	}
	// One sync for all blobs and layers, before what refers to them.
	if err := s.sync(in); err != nil {
		return Image{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	old := s.images[r.ID.String()]
	s.mu.Unlock()
	if old != nil {
		r.Tags, r.Digests, r.Pinned = slices.Clone(old.Tags), slices.Clone(old.Digests), old.Pinned
		r.Blobs = union(r.Blobs, old.Blobs)
		r.Snapshotters = union(r.Snapshotters, old.Snapshotters)
	}
	r.Tags, r.Digests = union(r.Tags, tags), union(r.Digests, digests)
	err = s.put(r)
	return r.image(), err
}

// put writes an image that was made or changed, then those that lose names to
// it, and shows them. changing is held.
func (s *Store) put(r *record) error {
	s.mu.Lock()
	losers := s.withoutNames(r.names(), r.ID)
	s.mu.Unlock()
	for _, w := range append([]*record{r}, losers...) {
		if err := s.write(w); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index(losers, nil, r)
	return nil
}

func union[T comparable](list, more []T) []T {
	for _, v := range more {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

// isEnd tells errors that say nothing about the image.
func isEnd(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
