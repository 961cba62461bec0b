package content

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// Transfer is a blob on its way into the store. All who want the same blob
// share one, and each calls Release; it is abandoned when nobody wants it.
type Transfer struct {
	store *Store
	desc  ocispec.Descriptor
	// ended is closed when the blob is there or err is set.
	ended  chan struct{}
	cancel context.CancelCauseFunc
	// found says that the blob was there before.
	found bool
	// refs counts who wants it, and others are the sources of those who came
	// when it was under way; Store.mu guards them.
	refs   int
	others []Opener

	// mu guards what follows; grown is signalled when it changes.
	mu       sync.Mutex
	grown    *sync.Cond
	p        *partial
	readers  int
	done     bool
	err      error
	watchers []func(int64)
}

// transferKey says which transfers are the same.
type transferKey struct {
	digest digest.Digest
	size   int64
}

// DamagedError says that a blob arrived whole and is not what it should be.
type DamagedError struct {
	Digest digest.Digest
	// Resumed is true when part of it was left by an earlier transfer, or all.
	Resumed bool
	Err     error
}

// Error is the reason.
func (e *DamagedError) Error() string { return e.Err.Error() }

// Unwrap returns the reason, of kind ErrDataLoss.
func (e *DamagedError) Unwrap() error { return e.Err }

// errAbandoned ends a transfer that nobody wants any more.
var errAbandoned = fmt.Errorf("nobody waits for it any more: %w", context.Canceled)

// errClosed ends the transfers of a store that is closed.
var errClosed = fmt.Errorf("the store is closed: %w", errdefs.ErrUnavailable)

// Fetch joins the transfer of a blob, or starts it. It returns at once. A
// blob that is there already is a finished transfer. What arrives is kept when
// the transfer breaks off, and a later one goes on with it. One that was joined
// goes on with another's source where its own fails: they may be different
// registries, or have different credentials.
func (s *Store) Fetch(desc ocispec.Descriptor, open Opener) (*Transfer, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("fetch blob %q: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	if desc.Size < 0 || desc.Size > MaxBlob {
		return nil, fmt.Errorf("fetch blob %s: size %d: %w", desc.Digest, desc.Size, errdefs.ErrInvalidArgument)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, fmt.Errorf("fetch blob %s: %w", desc.Digest, errClosed)
	}
	// With the size: who lies about it must not spoil the transfer of others.
	key := transferKey{desc.Digest, desc.Size}
	if t, ok := s.transfers[key]; ok {
		t.refs++
		t.others = append(t.others, open)
		return t, nil
	}
	t := &Transfer{store: s, desc: desc, ended: make(chan struct{}), refs: 1}
	t.grown = sync.NewCond(&t.mu)
	if size, ok := s.blobs[desc.Digest]; ok {
		if size != desc.Size {
			return nil, fmt.Errorf("fetch blob %s: it has %d bytes in place of %d: %w", desc.Digest, size, desc.Size, errdefs.ErrInvalidArgument)
		}
		t.done, t.found = true, true
		t.cancel = func(error) {}
		close(t.ended)
		return t, nil
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	t.cancel = cancel
	s.transfers[key] = t
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
	if key := (transferKey{t.desc.Digest, t.desc.Size}); s.transfers[key] == t {
		delete(s.transfers, key)
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

// Failed returns why the transfer has failed; nil when it has not, so far.
func (t *Transfer) Failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// Recheck verifies a blob that was there before the transfer, since what lies
// on a disk may change. One that is damaged or lost fails with DamagedError, and
// is not there any more.
func (t *Transfer) Recheck() error {
	if !t.found {
		return nil
	}
	f, err := t.store.Open(t.desc.Digest)
	if err == nil {
		defer f.Close()
		verifier := t.desc.Digest.Verifier()
		if _, err = io.Copy(verifier, f); err == nil && verifier.Verified() {
			return nil
		}
	}
	if derr := t.store.Delete(t.desc.Digest); derr != nil {
		return errors.Join(err, derr)
	}
	return &DamagedError{Digest: t.desc.Digest, Resumed: true, Err: fmt.Errorf("blob %s was damaged on the disk: %w", t.desc.Digest, errdefs.ErrDataLoss)}
}

// Watch has f called with the number of bytes that arrived, each time more
// have, from the transfer's goroutines. f must not block.
func (t *Transfer) Watch(f func(arrived int64)) {
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

// fetch brings the whole blob.
func (t *Transfer) fetch(ctx context.Context, open Opener) error {
	s := t.store
	places := s.downloads
	if t.desc.Size <= smallBlob {
		places = s.small
	}
	if err := places.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer places.Release(1)
	// One that was abandoned may still be closing its files.
	if err := s.arrive(ctx, t.desc.Digest); err != nil {
		return err
	}
	defer s.arrived(t.desc.Digest)
	p, err := s.openPartial(t.desc)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.p = p
	t.mu.Unlock()
	err = t.complete(ctx, open)
	for range maxOthers {
		if err == nil || ctx.Err() != nil || errdefs.IsDataLoss(err) || errors.Is(err, syscall.ENOSPC) {
			break
		}
		if open = t.other(); open == nil {
			break
		}
		err = t.complete(ctx, open)
	}
	switch {
	case err == nil:
	case errdefs.IsDataLoss(err):
		s.dropPartial(t.desc.Digest)
		err = &DamagedError{Digest: t.desc.Digest, Resumed: p.resumed > 0, Err: err}
	case errors.Is(err, syscall.ENOSPC):
		s.dropPartial(t.desc.Digest)
		_, _ = s.dropPartials(0) // of others, too: room is wanted more
	default:
		s.settle(p)
	}
	return err
}

// maxOthers is how many sources are tried beside the first.
const maxOthers = 3

// other is the source of somebody else who waits; nil for none.
func (t *Transfer) other() Opener {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	if len(t.others) == 0 {
		return nil
	}
	open := t.others[0]
	t.others = t.others[1:]
	return open
}

// complete downloads what is missing, and verifies.
func (t *Transfer) complete(ctx context.Context, open Opener) error {
	t.mu.Lock()
	t.p.giveBack()
	t.mu.Unlock()
	sum := t.desc.Digest.Algorithm().Hash()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wake := context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.grown.Broadcast()
	})
	defer wake()
	d := &download{t: t, open: open}
	var err error
	if t.desc.Size <= smallBlob {
		// Not worth another goroutine.
		if err = d.run(ctx); err == nil {
			err = t.hash(ctx, sum)
		}
	} else {
		verified := make(chan error, 1)
		go func() { verified <- t.hash(ctx, sum) }()
		if err = d.run(ctx); err != nil {
			cancel(err)
			<-verified
		} else {
			err = <-verified
		}
	}
	if err != nil {
		return err
	}
	if got := digest.NewDigest(t.desc.Digest.Algorithm(), sum); got != t.desc.Digest {
		return fmt.Errorf("the content has digest %s: %w", got, errdefs.ErrDataLoss)
	}
	return t.store.admit(t.desc)
}

// hash reads what arrives, in order, until all of it has.
func (t *Transfer) hash(ctx context.Context, sum hash.Hash) error {
	buf := make([]byte, min(chunk, max(t.desc.Size, 1)))
	for off := int64(0); off < t.desc.Size; {
		t.mu.Lock()
		for t.p.prefix() <= off && ctx.Err() == nil {
			t.grown.Wait()
		}
		n := min(int64(len(buf)), t.p.prefix()-off)
		t.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		got, err := t.p.f.ReadAt(buf[:n], off)
		if int64(got) < n {
			return fmt.Errorf("read what arrived: %w: %w", err, errdefs.ErrDataLoss)
		}
		sum.Write(buf[:n])
		off += n
	}
	return nil
}

// admit makes a verified file the blob.
func (s *Store) admit(desc ocispec.Descriptor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Not os.Rename, which looks first.
	if err := unix.Rename(s.partPath(desc.Digest), s.path(desc.Digest)); err != nil {
		return &os.LinkError{Op: "rename", Old: s.partPath(desc.Digest), New: s.path(desc.Digest), Err: err}
	}
	if desc.Size > markSize {
		_ = os.Remove(s.marksPath(desc.Digest))
	}
	s.blobs[desc.Digest] = desc.Size
	return nil
}

// arrive makes the caller the only one that writes a blob's unfinished file.
func (s *Store) arrive(ctx context.Context, d digest.Digest) error {
	wake := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.left.Broadcast()
	})
	defer wake()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.arriving[d] && ctx.Err() == nil {
		s.left.Wait()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.arriving[d] = true
	return nil
}

func (s *Store) arrived(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.arriving, d)
	s.left.Broadcast()
}

// take, more, position and end are those of the unfinished blob.
func (t *Transfer) take(from int) (int, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.p.take(from)
	if !ok && from > 0 {
		i, ok = t.p.take(0)
	}
	return i, ok
}

// giveBack lets another connection take a segment.
func (t *Transfer) giveBack(i int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p.segments[i].taken = false
}

// more tells whether there is a segment that nobody fetches.
func (t *Transfer) more() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, sg := range t.p.segments[t.p.front:] {
		if !sg.taken && sg.pos < sg.end {
			return true
		}
	}
	return false
}

func (t *Transfer) position(i int) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.p.segments[i].pos
}

func (t *Transfer) end(i int) int64 { return t.p.segments[i].end }

// write takes bytes of a segment, and tells readers and watchers.
func (t *Transfer) write(i int, data []byte, at int64) error {
	if err := t.p.write(data, at); err != nil {
		return err
	}
	t.store.received.Add(int64(len(data)))
	t.mu.Lock()
	t.p.wrote(i, int64(len(data)))
	arrived := t.p.arrived
	watchers := t.watchers
	t.grown.Broadcast()
	t.mu.Unlock()
	for _, f := range watchers {
		f(arrived)
	}
	return nil
}

// closeIdle closes the file when the transfer is over and nobody reads. mu is
// held.
func (t *Transfer) closeIdle() {
	if t.done && t.readers == 0 && t.p != nil {
		t.p.close()
		t.p = nil
	}
}

// Digest is that of the blob.
func (t *Transfer) Digest() digest.Digest { return t.desc.Digest }
