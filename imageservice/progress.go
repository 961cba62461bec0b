package imageservice

import (
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// progress tells many what happens to layers, and keeps the latest of each.
type progress struct {
	mu        sync.Mutex
	listeners map[int]func(Progress)
	next      int
	latest    []Progress
}

// subscribe adds a listener until the returned function is called; after that
// it is not called any more. It is told first what it missed.
func (p *progress) subscribe(f func(Progress)) (unsubscribe func()) {
	if f == nil {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listeners == nil {
		p.listeners = map[int]func(Progress){}
	}
	id := p.next
	p.next++
	p.listeners[id] = f
	for _, one := range p.latest {
		f(one)
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.listeners, id)
	}
}

func (p *progress) tell(desc ocispec.Descriptor, status string, current int64) {
	one := Progress{Digest: desc.Digest.String(), Status: status, Current: current, Total: desc.Size}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.IndexFunc(p.latest, func(l Progress) bool { return l.Digest == one.Digest })
	if at < 0 {
		p.latest = append(p.latest, one)
	} else {
		p.latest[at] = one
	}
	for _, f := range p.listeners {
		f(one)
	}
}

// layers returns the latest of each layer.
func (p *progress) layers() []Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.latest)
}

// Pulls tells of the transfers under way, the oldest first.
func (s *Store) Pulls() []PullUnderWay {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]PullUnderWay, 0, len(s.pulls))
	for _, p := range s.pulls {
		list = append(list, PullUnderWay{
			Ref: p.ref.String(), Platform: p.req.Platform, StartedAt: p.started, Waiters: p.waiters, Layers: p.layers(),
		})
	}
	slices.SortFunc(list, func(a, b PullUnderWay) int { return a.StartedAt.Compare(b.StartedAt) })
	return list
}
