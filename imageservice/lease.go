package imageservice

import (
	"errors"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice/content"
	"github.com/opencontainers/go-digest"
)

// lease keeps blobs and layers from being collected while an image is being
// made of them. What it keeps is named before it is looked for.
type lease struct {
	s      *Store
	blobs  []digest.Digest
	chains []digest.Digest
}

func (s *Store) newLease() *lease { return &lease{s: s} }

// keepBlobs keeps blobs, there or not yet.
func (l *lease) keepBlobs(list ...digest.Digest) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.blobs = append(l.blobs, list...)
	retain(l.s.refs, list, 1)
}

// keepChains keeps layers, there or not yet.
func (l *lease) keepChains(list ...digest.Digest) {
	l.s.removing.Lock()
	defer l.s.removing.Unlock()
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.chains = append(l.chains, list...)
	retain(l.s.chains, list, 1)
}

// release ends it. err is why the image was not made, nil when it was: what
// came of one that is bad goes at once, and what came before a pull broke off,
// or brought one blob that was damaged on its way, is kept for the next.
func (l *lease) release(err error) {
	var onItsWay *content.DamagedError
	bad := (errdefs.IsInvalidArgument(err) || errdefs.IsDataLoss(err)) && !errors.As(err, &onItsWay)
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	retain(l.s.refs, l.blobs, -1)
	retain(l.s.chains, l.chains, -1)
	for _, d := range l.blobs {
		if err == nil || l.s.refs[d] > 0 {
			continue
		}
		// The collector tries again.
		if bad {
			_ = l.s.content.Delete(d)
		} else {
			_ = l.s.content.Demote(d)
		}
	}
	l.blobs, l.chains = nil, nil
}
