package sandbox

import "sync"

// eventBuffer is how many events a subscriber may be behind.
const eventBuffer = 1024

// events hands events to subscribers; none of them can hold it up.
type events struct {
	// mu guards the fields below.
	mu     sync.Mutex
	subs   map[chan Event]bool
	closed bool
}

// Subscribe gives every event from now on.
func (m *Manager) Subscribe() (<-chan Event, func()) {
	ch := make(chan Event, eventBuffer)
	e := &m.events
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		close(ch)
		return ch, func() {}
	}
	if e.subs == nil {
		e.subs = map[chan Event]bool{}
	}
	e.subs[ch] = true
	return ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.drop(ch)
	}
}

// drop ends a subscription; the caller holds mu.
func (e *events) drop(ch chan Event) {
	if e.subs[ch] {
		delete(e.subs, ch)
		close(ch)
	}
}

// close ends all subscriptions.
func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for ch := range e.subs {
		e.drop(ch)
	}
}

// publish tells all subscribers; who has no room left is dropped.
func (m *Manager) publish(kind EventType, id string, p *pod) {
	e := &m.events
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.subs) == 0 {
		return
	}
	event := Event{Type: kind, ContainerID: id, At: now(), Pod: p.get().Pod}
	// Not all of the pod's: there may be thousands, and a subscriber may be a
	// thousand events behind.
	m.mu.RLock()
	if c := p.children[id]; c != nil {
		event.Container = &c.get().Container
	}
	m.mu.RUnlock()
	for ch := range e.subs {
		select {
		case ch <- event:
		default:
			e.drop(ch)
		}
	}
}
