package recorder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

// Config says where entries are kept and how many.
type Config struct {
	// Dir is a folder of the recorder's own; it is made when missing.
	Dir string
	// SegmentBytes is how long a file gets, Segments how many there are at
	// most; zero means 4 MiB and 8.
	SegmentBytes int64
	Segments     int
	// Queue is how many entries may wait to be written; zero means 4096.
	Queue int
}

// The defaults.
const (
	defaultSegmentBytes = 4 << 20
	defaultSegments     = 8
	defaultQueue        = 4096
	// batchBytes is how much is written at once at most.
	batchBytes = 64 << 10
)

// item is an entry, or a wish to know when all before it are written.
type item struct {
	entry   Entry
	flushed chan struct{}
}

// Recorder keeps entries. A nil *Recorder keeps none; all its methods may be
// called.
type Recorder struct {
	ring    *ring
	queue   chan item
	done    chan struct{}
	dropped atomic.Uint64

	// mu guards closed: nobody sends once it is set.
	mu     sync.RWMutex
	closed bool
}

// Open opens the recorder, mending what a killed agent left. The caller
// closes it.
func Open(cfg Config) (*Recorder, error) {
	if cfg.SegmentBytes == 0 {
		cfg.SegmentBytes = defaultSegmentBytes
	}
	if cfg.Segments == 0 {
		cfg.Segments = defaultSegments
	}
	if cfg.Queue == 0 {
		cfg.Queue = defaultQueue
	}
	ring, err := openRing(cfg.Dir, cfg.SegmentBytes, cfg.Segments)
	if err != nil {
		return nil, fmt.Errorf("open recorder: %w", err)
	}
	r := &Recorder{ring: ring, queue: make(chan item, cfg.Queue), done: make(chan struct{})}
	go r.write() // ended by Close
	return r, nil
}

// Note keeps an entry. It never waits: when the queue is full the entry is
// dropped and counted. A zero time is now.
func (r *Recorder) Note(e Entry) {
	if r == nil {
		return
	}
	if e.At.IsZero() {
		e.At = time.Now()
	}
	e.At = e.At.Round(0)
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		return
	}
	select {
	case r.queue <- item{entry: e}:
	default:
		r.dropped.Add(1)
	}
}

// Dropped is how many entries were lost since Open, because the queue was full
// or the disk refused them.
func (r *Recorder) Dropped() uint64 {
	if r == nil {
		return 0
	}
	return r.dropped.Load()
}

// Close writes what waits, and ends the recorder.
func (r *Recorder) Close() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	closed := r.closed
	r.closed = true
	r.mu.Unlock()
	if !closed {
		close(r.queue)
	}
	<-r.done
	return r.ring.close()
}

// flush returns when all that was noted before is written.
func (r *Recorder) flush(ctx context.Context) error {
	flushed := make(chan struct{})
	if err := r.ask(ctx, item{flushed: flushed}); err != nil {
		return err
	}
	select {
	case <-flushed:
		return nil
	case <-r.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("recorder is behind: %w", ctx.Err())
	}
}

// ask puts a wish into the queue; one that is closed has written all.
func (r *Recorder) ask(ctx context.Context, wish item) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		close(wish.flushed)
		return nil
	}
	select {
	case r.queue <- wish:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("recorder is behind: %w", ctx.Err())
	}
}

// write is the goroutine that writes. A disk that refuses costs entries, and
// one line in the log for each time that it begins to.
func (r *Recorder) write() {
	defer close(r.done)
	var batch bytes.Buffer
	failing := false
	for next := range r.queue {
		wishes, entries := r.gather(next, &batch)
		err := r.ring.append(batch.Bytes())
		if err != nil {
			r.dropped.Add(uint64(entries))
			if !failing {
				logrus.WithError(err).Warn("record what happens to pods")
			}
		}
		failing = err != nil
		batch.Reset()
		for _, flushed := range wishes {
			close(flushed)
		}
	}
}

// gather encodes an item and what waits behind it, up to a batch.
func (r *Recorder) gather(next item, batch *bytes.Buffer) (wishes []chan struct{}, entries int) {
	for {
		switch {
		case next.flushed != nil:
			wishes = append(wishes, next.flushed)
		case encode(batch, next.entry) != nil:
			r.dropped.Add(1)
		default:
			entries++
		}
		if batch.Len() >= batchBytes {
			return wishes, entries
		}
		var ok bool
		select {
		case next, ok = <-r.queue:
			if !ok {
				return wishes, entries
			}
		default:
			return wishes, entries
		}
	}
}

// errStop ends a scan early.
var errStop = errors.New("stop")
