// Package eventlog keeps the last events of a node in memory, and hands them
// to who watches: those of the past, then each as it happens, none twice and
// none left out that is still kept. A file beside it, where one is given, lets
// the next program know them too.
package eventlog

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// capacity is how many events are kept.
const capacity = 1024

// Event is something that happened to an object.
type Event struct {
	// Type is "container", "image", "network" or "volume"; Action is
	// docker's word, such as "start".
	Type, Action string
	// ID is the object's.
	ID         string
	Attributes map[string]string
	At         time.Time
}

// Log keeps events. The zero value is ready for use.
type Log struct {
	// mu guards the fields below.
	mu     sync.Mutex
	events []Event
	// first is the number of the oldest event in events.
	first uint64
	// more is closed when an event is added; nil while nobody waits.
	more chan struct{}
	// journal has the events on disk; nil where nobody asked for it.
	journal *journal
}

// Add adds an event, and lets go of the oldest when there are too many. It
// never waits for anybody. A zero time is now.
func (l *Log) Add(e Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	e.Attributes = maps.Clone(e.Attributes)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == capacity {
		// Copied, so that what a watcher holds does not change.
		l.events = append(make([]Event, 0, capacity), l.events[capacity/4:]...)
		l.first += capacity / 4
	}
	l.events = append(l.events, e)
	if l.journal != nil {
		l.journal.add(e, l.events)
	}
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// Last is the action of the newest event of an object that is one of actions;
// empty where there is none.
func (l *Log) Last(kind, id string, actions ...string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range slices.Backward(l.events) {
		if e.Type == kind && e.ID == id && slices.Contains(actions, e.Action) {
			return e.Action
		}
	}
	return ""
}

// Watch calls each for the events since a time, then for each as it happens,
// until ctx is done, until has passed, or each fails, whose error it returns.
// A zero since means from now on, a zero until for ever.
func (l *Log) Watch(ctx context.Context, since, until time.Time, each func(Event) error) error {
	var over <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		over = timer.C
	}
	next := l.start(since)
	for {
		batch, from, more := l.after(next)
		for _, e := range batch {
			if (!since.IsZero() && e.At.Before(since)) || (!until.IsZero() && e.At.After(until)) {
				continue
			}
			if err := each(e); err != nil {
				return err
			}
		}
		next = from + uint64(len(batch))
		if more == nil {
			continue
		}
		select {
		case <-more:
		case <-over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// start is the number of the first event to give.
func (l *Log) start(since time.Time) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if since.IsZero() {
		return l.first + uint64(len(l.events))
	}
	return l.first
}

// after gives the events from a number on, and the number of the first of
// them, which is later when some were let go; or a channel that tells when
// there are more.
func (l *Log) after(next uint64) (batch []Event, from uint64, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from = max(next, l.first)
	if skip := int(from - l.first); skip < len(l.events) {
		return l.events[skip:len(l.events):len(l.events)], from, nil
	}
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return nil, from, l.more
}
