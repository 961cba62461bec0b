package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// attempts is how often a connection that breaks off is taken up again
	// with next to nothing gained in between.
	attempts = 4
	// maxStalls is the same for one that stands still, which costs more.
	maxStalls = 2
	// minRate is the least a connection must bring, in bytes per second.
	minRate = 1 << 10
	// chunk is how much is read at once.
	chunk = 256 << 10
	// maxConnections is how many connections one blob may have.
	maxConnections = 4
	// slow is the time for a segment from which on another connection may
	// help: 32 MiB/s. Below, more connections only cost.
	slow = 250 * time.Millisecond
)

// Body is a remote blob from an offset on. A source that cannot begin in the
// middle begins at zero.
type Body struct {
	io.ReadCloser
	Offset int64
}

// Opener opens a remote blob at an offset, for length bytes or, when that is
// negative, to its end.
type Opener func(ctx context.Context, offset, length int64) (Body, error)

// errNoRanges ends a connection that was to help the first one and cannot.
var errNoRanges = errors.New("the source has no ranges")

// errStalled ends a connection that brings next to nothing.
var errStalled = errors.New("stalled")

// download brings what is missing of a blob, over one connection or, where the
// source has ranges and is slow, over several.
type download struct {
	t    *Transfer
	open Opener
	// group waits for all connections but the first.
	group sync.WaitGroup
	stop  context.CancelCauseFunc

	// mu guards what follows.
	mu sync.Mutex
	// connections are those that work; ranges is true once the source has
	// begun in the middle of a blob.
	connections int
	noRanges    bool
	err         error
}

// run returns when the blob is whole, or cannot be.
func (d *download) run(ctx context.Context) error {
	ctx, d.stop = context.WithCancelCause(ctx)
	defer d.stop(nil)
	d.connections = 1
	d.connection(ctx, 0)
	d.group.Wait()
	// A source without ranges may have told so to another connection when the
	// first had come by.
	if ctx.Err() == nil {
		d.connection(ctx, 0)
	}
	if d.err == nil {
		return context.Cause(ctx)
	}
	return d.err
}

// fail ends all connections.
func (d *download) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
	d.stop(err)
}

// connection fetches segment after segment. It ends when there are no more.
func (d *download) connection(ctx context.Context, number int) {
	b := &stream{d: d}
	defer b.close()
	for {
		i, ok := d.t.take(b.next)
		if !ok {
			return
		}
		began := time.Now()
		err := d.segment(ctx, b, i, number)
		if errors.Is(err, errNoRanges) {
			// The first connection comes by, or comes once more.
			d.t.giveBack(i)
			return
		}
		if err != nil {
			d.fail(err)
			return
		}
		if time.Since(began) > slow {
			d.grow(ctx)
		}
	}
}

// grow adds a connection when there is work and room for one.
func (d *download) grow(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noRanges || d.err != nil || d.connections >= maxConnections || !d.t.more() || !d.t.store.downloads.TryAcquire(1) {
		return
	}
	number := d.connections
	d.connections++
	d.group.Go(func() {
		defer d.t.store.downloads.Release(1)
		d.connection(ctx, number)
	})
}

// alone tells whether there is one connection so far.
func (d *download) alone() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.connections == 1
}

// segment fetches one segment, taking it up again when the connection breaks
// off.
func (d *download) segment(ctx context.Context, b *stream, i, number int) error {
	stalls := 0
	for failures := 1; ; failures++ {
		before := d.t.position(i)
		err := b.fetch(ctx, i, number)
		if err == nil {
			return nil
		}
		b.close()
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if d.t.position(i)-before >= markSize {
			failures, stalls = 1, 0
		}
		if errors.Is(err, errStalled) {
			stalls++
		}
		if failures >= attempts || stalls >= maxStalls || !transient(err) {
			return err
		}
		if err := pause(ctx, backoff(failures)); err != nil {
			return err
		}
	}
}

// stream is one connection: a body that segments are read from one after
// another, while they follow each other.
type stream struct {
	d    *download
	body *Body
	// pos is where the body stands; limit is where it ends, or negative.
	pos, limit int64
	// next is the segment behind the last one.
	next int
	buf  []byte
	// watch ends the connection when it stands still.
	watch *watch
}

func (b *stream) close() {
	if b.body != nil {
		b.watch.stop()
		b.body.Close()
		b.body = nil
	}
}

// fetch brings a segment. The first connection asks for all there is, so that
// a blob that comes fast is one request; others ask for their segments.
func (b *stream) fetch(ctx context.Context, i, number int) error {
	t := b.d.t
	at, end := t.position(i), t.end(i)
	if b.body == nil || b.pos != at || b.limit >= 0 && b.limit < end {
		b.close()
		length := end - at
		if number == 0 && b.d.alone() {
			length = -1
		}
		if err := b.begin(ctx, at, length, number > 0); err != nil {
			return err
		}
	}
	for at < end {
		n, err := b.body.Read(b.buf[:min(int64(len(b.buf)), end-at)])
		if n > 0 {
			b.watch.hold()
			if err := t.write(i, b.buf[:n], at); err != nil {
				return err
			}
			at += int64(n)
			b.pos = at
			b.watch.add(int64(n))
		}
		if err != nil && at < end {
			return b.explain(err)
		}
	}
	b.next = i + 1
	if at == t.desc.Size && b.limit < 0 {
		return b.expectEnd()
	}
	return nil
}

// explain says why reading ended early.
func (b *stream) explain(err error) error {
	if stalled := b.watch.err(); stalled != nil {
		return stalled
	}
	if err == io.EOF {
		return brokenError{fmt.Errorf("it ended after %d of %d bytes: %w: %w", b.pos, b.d.t.desc.Size, io.ErrUnexpectedEOF, errdefs.ErrUnavailable)}
	}
	return brokenError{err}
}

// brokenError is that of a connection that had begun to answer.
type brokenError struct{ error }

func (e brokenError) Unwrap() error { return e.error }

// expectEnd makes sure that no more comes than was promised.
func (b *stream) expectEnd() error {
	var one [1]byte
	for {
		n, err := b.body.Read(one[:])
		if n > 0 {
			return fmt.Errorf("more than the %d bytes announced: %w", b.d.t.desc.Size, errdefs.ErrDataLoss)
		}
		if err != nil {
			return nil
		}
	}
}

// begin opens the source at an offset. One without ranges is read up to there,
// but not by a connection that helps another.
func (b *stream) begin(ctx context.Context, at, length int64, helps bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	body, err := b.d.open(ctx, at, length)
	if err != nil {
		cancel(nil)
		return err
	}
	b.body, b.pos, b.limit = &body, at, at+length
	if length < 0 || body.Offset == 0 && at > 0 {
		b.limit = -1
	}
	if b.buf == nil {
		b.buf = make([]byte, min(chunk, max(b.d.t.desc.Size, 1)))
	}
	b.watch = newWatch(b.d.t.store.stall, cancel)
	if body.Offset == at {
		return nil
	}
	b.d.mu.Lock()
	b.d.noRanges = true
	b.d.mu.Unlock()
	if helps {
		b.close()
		return errNoRanges
	}
	for skip := at - body.Offset; skip > 0; {
		n, err := body.Read(b.buf[:min(int64(len(b.buf)), skip)])
		b.watch.add(int64(n))
		if skip -= int64(n); err != nil && skip > 0 {
			return b.explain(err)
		}
	}
	return nil
}

// watch cancels a connection that brings next to nothing for a while.
type watch struct {
	cancel context.CancelCauseFunc
	window time.Duration
	timer  *time.Timer

	mu    sync.Mutex
	got   int64
	fault error
	over  bool
	// since is when what arrived began to be written, zero when it is not;
	// held is the time that writing took in this window.
	since time.Time
	held  time.Duration
}

func newWatch(window time.Duration, cancel context.CancelCauseFunc) *watch {
	w := &watch{cancel: cancel, window: window}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(window, w.look)
	return w
}

// hold tells that now something is written: that the disk is slow is not the
// connection's fault.
func (w *watch) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Now()
}

// add counts what arrived, and ends hold.
func (w *watch) add(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got += n
	w.release()
}

// release adds the time of a hold up to now. mu is held.
func (w *watch) release() {
	if !w.since.IsZero() {
		w.held += time.Since(w.since)
		w.since = time.Time{}
	}
}

// look is called at the end of each window.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	if writing := !w.since.IsZero(); writing {
		w.release()
		w.since = time.Now()
	}
	if least := max(int64(minRate*w.window.Seconds()), 1); w.got < least && w.held < w.window/2 {
		w.fault = fmt.Errorf("%w: %d bytes in %s: %w", errStalled, w.got, w.window, errdefs.ErrUnavailable)
		w.cancel(w.fault)
		return
	}
	w.got, w.held = 0, 0
	w.timer.Reset(w.window)
}

// err is why the connection was ended; nil when it was not.
func (w *watch) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fault
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
	w.cancel(nil)
}

// backoff is how long to wait before another attempt, so that many do not
// come at one moment.
func backoff(failures int) time.Duration {
	d := 200 * time.Millisecond << min(failures-1, 5)
	return d/2 + rand.N(d)
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
	var broken brokenError
	return errors.Is(err, errStalled) || errors.As(err, &broken) || errors.As(err, &netErr) && netErr.Timeout()
}
