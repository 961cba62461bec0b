package content

import (
	"context"
	"fmt"
	"io"
	"os"
)

// Reader reads a blob while it arrives, waiting for bytes that have not yet.
// The bytes are verified only when the transfer has ended well: what was made
// of them is worth nothing before Wait returned nil. The end of ctx ends a
// read that waits. The caller closes the reader.
func (t *Transfer) Reader(ctx context.Context) (io.ReadCloser, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done && t.p == nil {
		if t.err != nil {
			return nil, t.err
		}
		return t.store.Open(t.desc.Digest)
	}
	t.readers++
	r := &tail{t: t, ctx: ctx}
	r.stop = context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.grown.Broadcast()
	})
	return r, nil
}

// tail follows a file that another goroutine writes.
type tail struct {
	t      *Transfer
	ctx    context.Context
	stop   func() bool
	off    int64
	closed bool
}

func (r *tail) Read(p []byte) (int, error) {
	f, n, err := r.wait(int64(len(p)))
	if err != nil {
		return 0, err
	}
	got, err := f.ReadAt(p[:n], r.off)
	r.off += int64(got)
	if got > 0 {
		return got, nil
	}
	return 0, err
}

// wait returns the file and how much can be read, at most want.
func (r *tail) wait(want int64) (*os.File, int64, error) {
	t := r.t
	t.mu.Lock()
	defer t.mu.Unlock()
	arrived := t.prefix()
	for ; !r.closed && !t.done && arrived <= r.off && r.ctx.Err() == nil; arrived = t.prefix() {
		t.grown.Wait()
	}
	switch {
	case r.closed:
		return nil, 0, fmt.Errorf("read blob %s: %w", t.desc.Digest, os.ErrClosed)
	case t.err != nil:
		return nil, 0, t.err
	case arrived > r.off:
		return t.p.f, min(want, arrived-r.off), nil
	case t.done:
		return nil, 0, io.EOF
	}
	return nil, 0, context.Cause(r.ctx)
}

// prefix is up to where the blob can be read. mu is held.
func (t *Transfer) prefix() int64 {
	if t.p == nil {
		return 0
	}
	return t.p.prefix()
}

// Close ends reading; the transfer goes on.
func (r *tail) Close() error {
	r.stop()
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	r.t.readers--
	r.t.closeIdle()
	return nil
}
