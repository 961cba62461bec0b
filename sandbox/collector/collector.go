// Package collector keeps readings that many ask for: of each key at most one
// is under way, all who ask meanwhile share it, and one that hangs holds up
// nobody for longer than a moment, and after that not at all.
//
// Nothing runs while nobody asks.
package collector

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// Config says how long readings hold and may take.
type Config struct {
	// Age is how old a reading may be that is given out again.
	Age time.Duration
	// Patience bounds a reading. Wait bounds the waiting for it; zero means
	// Patience.
	Patience, Wait time.Duration
	// Keep is how old a reading may be that is given out in place of one
	// that hangs.
	Keep time.Duration
	// Readers is how many readings are made at once; zero sets no bound.
	Readers int
	// Behind gives a reading out that is older than Age, while a new one is
	// made in the background, and leaves Rest times what a reading took
	// between two of them.
	Behind bool
	Rest   int
}

// Collector keeps readings of type V by key. Its methods are safe for
// concurrent use.
type Collector[V any] struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}

	// mu guards the fields below.
	mu      sync.Mutex
	entries map[string]*entry[V]
	closed  bool
}

// entry is what is known of a key.
type entry[V any] struct {
	// value is the last reading made, at its time; zero before the first.
	value V
	at    time.Time
	// fresh is until when value is given out without a new reading.
	fresh time.Time
	// now is the reading under way, nil without one.
	now *reading
}

// reading is one under way. err is set before done is closed.
type reading struct {
	done  chan struct{}
	began time.Time
	err   error
}

// Reader makes a reading. before is the former one and at its time, which is
// zero when there is none. ctx ends when Patience is over.
type Reader[V any] func(ctx context.Context, before V, at time.Time) (V, error)

// New makes a Collector, which Close ends.
func New[V any](cfg Config) *Collector[V] {
	if cfg.Wait == 0 {
		cfg.Wait = cfg.Patience
	}
	c := &Collector[V]{cfg: cfg, entries: map[string]*entry[V]{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if cfg.Readers > 0 {
		c.slots = make(chan struct{}, cfg.Readers)
	}
	return c
}

// closeTime is how long Close waits for a reading that hangs.
const closeTime = 5 * time.Second

// Close ends the readings under way and waits for them, for one that hangs
// no longer than closeTime.
func (c *Collector[V]) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	done := make(chan struct{})
	go func() {
		c.wg.Wait()
		close(done)
	}()
	timer := time.NewTimer(closeTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// Drop forgets a key.
func (c *Collector[V]) Drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, key)
}

// Keep forgets all keys but some. Who asked while one was dropped has made it
// known again, for good.
func (c *Collector[V]) Keep(wanted map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.entries, func(key string, _ *entry[V]) bool { return !wanted[key] })
}

// Get gives a reading of the key that is not older than Age, or, where
// reading hangs, not older than Keep. Without one the error is
// context.DeadlineExceeded. A failure is not kept.
func (c *Collector[V]) Get(ctx context.Context, key string, read Reader[V]) (V, error) {
	var none V
	began := time.Now()
	c.mu.Lock()
	e := c.entry(key)
	if began.Before(e.fresh) {
		defer c.mu.Unlock()
		return e.value, nil
	}
	if e.now == nil {
		if c.closed {
			c.mu.Unlock()
			return none, fmt.Errorf("read %s: the agent is ending: %w", key, errdefs.ErrUnavailable)
		}
		c.begin(e, read, began)
	}
	now := e.now
	if c.cfg.Behind && !e.at.IsZero() {
		defer c.mu.Unlock()
		return e.value, nil
	}
	c.mu.Unlock()
	if err := c.await(ctx, now); err != nil {
		return c.kept(ctx, key, e, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.value, now.err
}

// entry gives what is known of a key. The caller holds mu.
func (c *Collector[V]) entry(key string) *entry[V] {
	e := c.entries[key]
	if e == nil {
		e = &entry[V]{}
		c.entries[key] = e
	}
	return e
}

// await waits for a reading to end, as long as it may take.
func (c *Collector[V]) await(ctx context.Context, r *reading) error {
	timer := time.NewTimer(time.Until(r.began.Add(c.cfg.Wait)))
	defer timer.Stop()
	select {
	case <-r.done:
		return nil
	case <-timer.C:
		return context.DeadlineExceeded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kept gives the former reading in place of one that hangs.
func (c *Collector[V]) kept(ctx context.Context, key string, e *entry[V], err error) (V, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() == nil && !e.at.IsZero() && time.Since(e.at) < c.cfg.Keep {
		return e.value, nil
	}
	var none V
	return none, fmt.Errorf("read %s: %w", key, err)
}

// begin starts a reading. The caller holds mu.
func (c *Collector[V]) begin(e *entry[V], read Reader[V], began time.Time) {
	perform := c.claim(e, read, began)
	c.wg.Go(func() {
		release := c.slot()
		defer release()
		perform()
	})
}

// claim has all others wait for a reading, which what it returns makes. The
// caller holds mu.
func (c *Collector[V]) claim(e *entry[V], read Reader[V], began time.Time) (perform func()) {
	r := &reading{done: make(chan struct{}), began: began}
	e.now = r
	before, at := e.value, e.at
	return func() {
		ctx, cancel := context.WithTimeout(c.ctx, c.cfg.Patience)
		defer cancel()
		started := time.Now()
		value, err := read(ctx, before, at)
		c.end(e, r, value, err, started)
	}
}

// slot waits until there may be one reading more. What it returns gives the
// place back; one that hangs loses it when Patience is over.
func (c *Collector[V]) slot() (release func()) {
	if c.slots == nil {
		return func() {}
	}
	select {
	case c.slots <- struct{}{}:
	case <-c.ctx.Done():
		return func() {}
	}
	free := sync.OnceFunc(func() { <-c.slots })
	timer := time.AfterFunc(c.cfg.Patience, free)
	return func() {
		timer.Stop()
		free()
	}
}

// end publishes a reading.
func (c *Collector[V]) end(e *entry[V], r *reading, value V, err error, started time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.now = nil
	r.err = err
	if err == nil {
		ended := time.Now()
		e.value, e.at = value, ended
		e.fresh = started.Add(max(c.cfg.Age, time.Duration(c.cfg.Rest)*ended.Sub(started)))
	}
	close(r.done)
}
