package imageservice

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/nodeagent/nodeagent/imageservice/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// pushesAtOnce is how many blobs of one image are sent at one time.
const pushesAtOnce = 5

// PushRequest asks for an image to be sent to the registry of its tag.
type PushRequest struct {
	// Ref is a local tag, in any form docker takes.
	Ref  string
	Auth Auth
	// Platform, when not empty, must be the image's.
	Platform string
	// Progress, when not nil, is called from one goroutine at a time; it
	// must not block.
	Progress func(Progress)
}

// PushResult is a finished push.
type PushResult struct {
	// Digest and Size are those of the manifest.
	Digest string
	Size   int64
}

// Push sends an image to the registry that its tag names. Blobs that the
// repository has are not sent, and those that another repository of the same
// registry has, as far as we know, are mounted from there. Blobs go as they
// came; a layer that is not compressed is, and then kept so.
func (s *Store) Push(ctx context.Context, req PushRequest) (PushResult, error) {
	named, err := parseReference(req.Ref)
	if err != nil {
		return PushResult{}, fmt.Errorf("push: %w", err)
	}
	tagged, ok := named.(reference.NamedTagged)
	if !ok {
		return PushResult{}, fmt.Errorf("push %s: not a tag: %w", named, errdefs.ErrInvalidArgument)
	}
	res, err := s.push(ctx, tagged, req)
	if err != nil {
		return PushResult{}, fmt.Errorf("push %s: %w", named, err)
	}
	if img, err := s.Image(ctx, named.String()); err == nil {
		s.tell(Change{Action: ActionPush, Image: img, Ref: named.String()})
	}
	return res, nil
}

func (s *Store) push(ctx context.Context, ref reference.NamedTagged, req PushRequest) (PushResult, error) {
	creds, err := credentials(req.Auth)
	if err != nil {
		return PushResult{}, err
	}
	l := s.newLease()
	defer l.release(nil)
	rec, err := s.tagged(ref)
	if err != nil {
		return PushResult{}, err
	}
	w, err := s.openWhole(l, rec, req.Platform)
	if err != nil {
		return PushResult{}, err
	}
	target, err := s.registry.Push(ref, creds)
	if err != nil {
		return PushResult{}, err
	}
	defer target.Close()
	p := &pushing{s: s, w: w, target: target, from: s.repositoriesOf(ref)}
	defer p.progress.subscribe(req.Progress)()
	desc, err := p.run(ctx)
	if err != nil {
		return PushResult{}, err
	}
	return PushResult{Digest: desc.Digest.String(), Size: desc.Size}, s.pushed(w, ref, desc)
}

// tagged finds the image of a tag, and of nothing else.
func (s *Store) tagged(ref reference.NamedTagged) (*record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.images[s.names[ref.String()]]
	if r == nil || r.Removed {
		return nil, fmt.Errorf("no image has this tag: %w", errdefs.ErrNotFound)
	}
	return r, nil
}

// repositoriesOf tells for each blob which other repositories of a registry
// it was pulled from or pushed to.
func (s *Store) repositoriesOf(ref reference.Named) map[digest.Digest][]string {
	from := map[digest.Digest][]string{}
	for _, r := range s.records() {
		var repositories []string
		for _, name := range r.Digests {
			named, err := reference.ParseNamed(name)
			if err == nil && reference.Domain(named) == reference.Domain(ref) && reference.Path(named) != reference.Path(ref) {
				repositories = union(repositories, []string{reference.Path(named)})
			}
		}
		if len(repositories) == 0 {
			continue
		}
		for _, blob := range r.Blobs {
			from[blob] = union(from[blob], repositories)
		}
	}
	return from
}

// pushing is one push under way.
type pushing struct {
	s        *Store
	w        *whole
	target   *registry.Target
	from     map[digest.Digest][]string
	progress progress
}

// run sends layers, configuration and manifest, in this order.
func (p *pushing) run(ctx context.Context) (ocispec.Descriptor, error) {
	for _, desc := range p.w.doc.Layers {
		p.progress.tell(desc, "Preparing", 0)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(pushesAtOnce)
	for i := range p.w.doc.Layers {
		g.Go(func() error { return p.layer(gctx, i) })
	}
	if err := g.Wait(); err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest, _, err := p.w.seal()
	if err != nil {
		return manifest, err
	}
	for _, desc := range []ocispec.Descriptor{p.w.doc.Config, manifest} {
		if _, err := p.target.Send(ctx, p.blob(desc, nil)); err != nil {
			return manifest, err
		}
	}
	return manifest, nil
}

func (p *pushing) blob(desc ocispec.Descriptor, sent func(int64)) registry.Blob {
	return registry.Blob{
		Desc: desc, From: p.from[desc.Digest], Sent: sent,
		Open: func() (io.ReadCloser, error) { return p.s.content.Open(desc.Digest) },
	}
}

// layer brings one layer to the registry.
func (p *pushing) layer(ctx context.Context, i int) error {
	shown, _ := p.w.layer(i)
	done, err := p.prepare(ctx, i)
	if err != nil || done {
		return err
	}
	desc, _ := p.w.layer(i)
	p.progress.tell(shown, "Waiting", 0)
	// It is shown under the name it began with.
	shown.Size = desc.Size
	out, err := p.target.Send(ctx, p.blob(desc, func(n int64) { p.progress.tell(shown, "Pushing", n) }))
	if err != nil {
		return err
	}
	status := "Pushed"
	switch {
	case out.Existed:
		status = "Layer already exists"
	case out.From != "":
		status = "Mounted from " + out.From
	}
	p.progress.tell(shown, status, shown.Size)
	return nil
}

// prepare makes sure that there is something to send. done means that the
// registry has what we lack.
func (p *pushing) prepare(ctx context.Context, i int) (done bool, err error) {
	desc, here := p.w.layer(i)
	if here && isPlain(desc.MediaType) {
		return false, p.w.compress(i)
	}
	if here {
		return false, nil
	}
	if done, err = p.target.Has(ctx, desc.Digest); done {
		p.progress.tell(desc, "Layer already exists", desc.Size)
	}
	if err != nil || done {
		return done, err
	}
	return false, p.w.restore(ctx, i)
}

// pushed notes where an image was pushed to, and keeps the form it has there.
func (s *Store) pushed(w *whole, ref reference.Named, manifest ocispec.Descriptor) error {
	if w.remade {
		return nil // that is another image, which only looks the same
	}
	if w.changed {
		// Blobs were made.
		if err := s.content.Sync(); err != nil {
			return err
		}
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	r, err := s.lookup(w.rec.ID.String())
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	c := r.clone()
	c.Digests = union(c.Digests, digestOf(ref, manifest.Digest))
	if w.changed && r.Manifest == w.rec.Manifest {
		c.adopt(w, manifest)
	}
	if slices.Equal(c.Digests, r.Digests) && c.Manifest == r.Manifest {
		return nil
	}
	defer s.wakeCollector()
	return s.put(c)
}

// adopt makes another manifest of the same layers the image's own.
func (r *record) adopt(w *whole, manifest ocispec.Descriptor) {
	old := map[digest.Digest]bool{r.Manifest: true}
	var raw ocispec.Manifest
	if data, err := w.s.content.Read(r.Manifest, maxDocument); err == nil {
		_ = json.Unmarshal(data, &raw)
	}
	for _, layer := range raw.Layers {
		old[layer.Digest] = true
	}
	r.Blobs = slices.DeleteFunc(r.Blobs, func(d digest.Digest) bool { return old[d] })
	r.Manifest, r.ContentSize = manifest.Digest, manifest.Size+w.doc.Config.Size
	r.Blobs = union(r.Blobs, []digest.Digest{manifest.Digest, w.doc.Config.Digest})
	for _, layer := range w.doc.Layers {
		r.Blobs = union(r.Blobs, []digest.Digest{layer.Digest})
		r.ContentSize += layer.Size
	}
}
