package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// attempts is how often a transfer that breaks off is taken up again
	// with nothing gained in between.
	attempts = 4
	// minRate is the least a transfer must bring, in bytes per second.
	minRate = 64
	// chunk is how much is read at once.
	chunk = 256 << 10
)

// Opener opens a remote blob for reading, from its beginning. When the reader
// is an io.Seeker, a transfer that broke off goes on where it was.
type Opener func(ctx context.Context) (io.ReadCloser, error)

// Transfer is a blob on its way into the store. All who want the same blob
// share one, and each calls Release; it is abandoned when nobody wants it.
type Transfer struct {
	store *Store
	desc  ocispec.Descriptor
	// ended is closed when the blob is there or err is set.
	ended  chan struct{}
	cancel context.CancelCauseFunc
	// refs counts who wants it; Store.mu guards it.
	refs int

	// mu guards what follows; grown is signalled when it changes.
	mu       sync.Mutex
	grown    *sync.Cond
	w        *writer
	readers  int
	written  int64
	done     bool
	err      error
	watchers []func(int64)
}

// errAbandoned ends a transfer that nobody wants any more.
var errAbandoned = fmt.Errorf("nobody waits for it any more: %w", context.Canceled)

// errClosed ends the transfers of a store that is closed.
var errClosed = fmt.Errorf("the store is closed: %w", errdefs.ErrUnavailable)

// Fetch joins the transfer of a blob, or starts it. It returns at once. A
// blob that is there already is a finished transfer.
func (s *Store) Fetch(desc ocispec.Descriptor, open Opener) (*Transfer, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("fetch blob %q: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, fmt.Errorf("fetch blob %s: %w", desc.Digest, errClosed)
	}
	if t, ok := s.transfers[desc.Digest]; ok {
		t.refs++
		return t, nil
	}
	t := &Transfer{store: s, desc: desc, ended: make(chan struct{}), refs: 1}
	t.grown = sync.NewCond(&t.mu)
	if n, ok := s.blobs[desc.Digest]; ok {
		t.written, t.done = n, true
		t.cancel = func(error) {}
		close(t.ended)
		return t, nil
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	t.cancel = cancel
	s.transfers[desc.Digest] = t
	s.running.Go(func() { t.run(ctx, open) })
	return t, nil
}

// Release tells that a caller of Fetch has no more use for the transfer. Its
// readers must be closed before.
func (t *Transfer) Release() {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	t.refs--
	if t.refs == 0 {
		s.drop(t)
		t.cancel(errAbandoned)
	}
}

// drop makes a later Fetch start anew. mu is held.
func (s *Store) drop(t *Transfer) {
	if s.transfers[t.desc.Digest] == t {
		delete(s.transfers, t.desc.Digest)
	}
}

// Wait returns when the blob is in the store, or with the reason why it is
// not.
func (t *Transfer) Wait(ctx context.Context) error {
	select {
	case <-t.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Watch has f called with the number of bytes that arrived, each time more
// have, from the transfer's goroutine. f must not block.
func (t *Transfer) Watch(f func(written int64)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watchers = append(t.watchers, f)
}

func (t *Transfer) run(ctx context.Context, open Opener) {
	err := t.fetch(ctx, open)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		// Whatever broke, it broke because of this.
		err = cause
		if t.store.ctx.Err() != nil {
			err = errClosed
		}
	}
	t.store.mu.Lock()
	t.store.drop(t)
	t.store.mu.Unlock()
	t.cancel(nil)

	t.mu.Lock()
	if err != nil {
		t.err = fmt.Errorf("fetch blob %s: %w", t.desc.Digest, err)
	}
	t.done = true
	t.closeIdle()
	t.grown.Broadcast()
	t.mu.Unlock()
	close(t.ended)
}

// fetch brings the whole blob, opening it again when it breaks off.
func (t *Transfer) fetch(ctx context.Context, open Opener) error {
	places := t.store.downloads
	if t.desc.Size <= smallBlob {
		places = t.store.small
	}
	if err := places.Acquire(ctx, 1); err != nil {
		return err
	}
	defer places.Release(1)
	w, err := t.store.newWriter(t.desc.Digest, t.desc.Size)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.w = w
	t.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer t.watchRate(cancel)()
	for failures := 1; ; failures++ {
		before := t.w.written
		err := t.copy(ctx, open)
		if err == nil {
			return w.commit()
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if t.w.written > before {
			failures = 1
		}
		if failures >= attempts || !transient(err) {
			return err
		}
		if err := pause(ctx, time.Duration(failures)*200*time.Millisecond); err != nil {
			return err
		}
	}
}

// watchRate cancels a transfer that brings next to nothing for a while.
func (t *Transfer) watchRate(cancel context.CancelCauseFunc) (stop func()) {
	window := t.store.stall
	least := int64(minRate * window.Seconds())
	var mu sync.Mutex
	var last int64
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(window, func() {
		mu.Lock()
		defer mu.Unlock()
		t.mu.Lock()
		written := t.written
		t.mu.Unlock()
		if written-last < max(least, 1) {
			cancel(fmt.Errorf("stalled: %d bytes in %s: %w", written-last, window, errdefs.ErrUnavailable))
			return
		}
		last = written
		timer.Reset(window)
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
	}
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// transient tells whether trying again may help.
func transient(err error) bool {
	var netErr net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.As(err, &netErr) && netErr.Timeout()
}

// copy reads from where the last attempt ended.
func (t *Transfer) copy(ctx context.Context, open Opener) error {
	r, err := open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	if skip := t.w.written; skip > 0 {
		if seeker, ok := r.(io.Seeker); ok {
			_, err = seeker.Seek(skip, io.SeekStart)
		} else {
			_, err = io.CopyN(io.Discard, r, skip)
		}
		if err != nil {
			return err
		}
	}
	buf := make([]byte, chunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := t.w.Write(buf[:n]); err != nil {
				return err
			}
			t.advance()
		}
		switch {
		case err == io.EOF && t.w.size > t.w.written:
			return io.ErrUnexpectedEOF
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// advance tells readers and watchers of new bytes.
func (t *Transfer) advance() {
	t.mu.Lock()
	t.written = t.w.written
	watchers := t.watchers
	t.grown.Broadcast()
	t.mu.Unlock()
	for _, f := range watchers {
		f(t.w.written)
	}
}

// closeIdle closes the file when the transfer is over and nobody reads. mu is
// held.
func (t *Transfer) closeIdle() {
	if t.done && t.readers == 0 && t.w != nil {
		t.w.discard()
		t.w = nil
	}
}

// Digest is that of the blob.
func (t *Transfer) Digest() digest.Digest { return t.desc.Digest }
