package content

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestAbsurdSizes fetches blobs whose size is a lie.
func TestAbsurdSizes(t *testing.T) {
	s := open(t, Config{})
	data, desc := blob(t, 1000)
	source := whole(func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	for _, size := range []int64{-1, MaxBlob + 1, 1 << 62, math.MaxInt64} {
		if _, err := s.Fetch(ocispec.Descriptor{Digest: desc.Digest, Size: size}, source); !errdefs.IsInvalidArgument(err) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	if err := fetch(t, s, desc, source); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(ocispec.Descriptor{Digest: desc.Digest, Size: 999}, source); !errdefs.IsInvalidArgument(err) {
		t.Errorf("another size than that of the blob that is there: %v", err)
	}
}

// TestSizesDoNotMix fetches a blob while another transfer waits for it under
// a wrong size.
func TestSizesDoNotMix(t *testing.T) {
	s := open(t, Config{})
	data, desc := blob(t, 1000)
	reading, bad := make(chan struct{}), make(chan error, 1)
	opened := 0
	go func() {
		bad <- fetch(t, s, ocispec.Descriptor{Digest: desc.Digest, Size: 2000}, func(ctx context.Context, _, _ int64) (Body, error) {
			if opened++; opened > 1 {
				return Body{}, errdefs.ErrNotFound
			}
			close(reading)
			return Body{ReadCloser: io.NopCloser(bytes.NewReader(data))}, nil
		})
	}()
	<-reading
	err := fetch(t, s, desc, whole(func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }))
	if err != nil {
		t.Error(err)
	}
	if err := <-bad; err == nil {
		t.Error("a blob of another size arrived")
	}
}

// TestRangesThatAreNone has a second connection find out that the source has
// no ranges when the first has fetched all the rest.
func TestRangesThatAreNone(t *testing.T) {
	s := open(t, Config{StallTimeout: 10 * time.Second})
	data, desc := blob(t, 3*segmentSize)
	var mu sync.Mutex
	var helper int64
	closed, ends := map[int64]chan struct{}{}, map[int64]func(){}
	for offset := int64(0); offset < desc.Size; offset += segmentSize {
		c := make(chan struct{})
		closed[offset], ends[offset] = c, sync.OnceFunc(func() { close(c) })
	}
	err := fetch(t, s, desc, func(ctx context.Context, offset, length int64) (Body, error) {
		mu.Lock()
		helps := helper == 0 && offset > 0
		if helps {
			helper = offset
		}
		mu.Unlock()
		body := &endingBody{Reader: bytes.NewReader(data), end: ends[offset]}
		switch {
		case offset == 0:
			body.pause = slow + 50*time.Millisecond
		case helps && offset == segmentSize:
			// The first connection begins anew with the last segment.
			<-closed[2*segmentSize]
		case helps:
			<-closed[0]
		}
		return Body{ReadCloser: body}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// endingBody begins after a pause, and tells when it is closed.
type endingBody struct {
	io.Reader
	pause time.Duration
	end   func()
}

func (b *endingBody) Read(p []byte) (int, error) {
	<-time.After(b.pause)
	b.pause = 0
	return b.Reader.Read(p)
}

func (b *endingBody) Close() error { b.end(); return nil }

// TestAnyBreak has connections break off with an error that no list has, as
// HTTP/2 does.
func TestAnyBreak(t *testing.T) {
	s := open(t, Config{})
	data, desc := blob(t, 4*markSize)
	opened := 0
	err := fetch(t, s, desc, func(_ context.Context, offset, _ int64) (Body, error) {
		opened++
		if opened == 1 {
			r := io.MultiReader(bytes.NewReader(data[:2*markSize]), iotest.ErrReader(errors.New("stream error: INTERNAL_ERROR")))
			return Body{ReadCloser: io.NopCloser(r)}, nil
		}
		return Body{ReadCloser: io.NopCloser(bytes.NewReader(data[offset:])), Offset: offset}, nil
	})
	if err != nil || opened != 2 {
		t.Errorf("%d connections: %v", opened, err)
	}
}

// TestSourcesOfOthers fetches a blob from a source that fails, while somebody
// else waits for the same blob and has another.
func TestSourcesOfOthers(t *testing.T) {
	s := open(t, Config{})
	data, desc := blob(t, 3*markSize)
	joined := make(chan struct{})
	bad, err := s.Fetch(desc, func(_ context.Context, offset, _ int64) (Body, error) {
		<-joined
		if offset > 0 {
			return Body{}, errdefs.ErrPermissionDenied
		}
		return Body{ReadCloser: io.NopCloser(bytes.NewReader(data[:2*markSize]))}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Release()
	asked := int64(-1)
	good, err := s.Fetch(desc, func(_ context.Context, offset, _ int64) (Body, error) {
		asked = offset
		return Body{ReadCloser: io.NopCloser(bytes.NewReader(data[offset:])), Offset: offset}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer good.Release()
	r, err := bad.Reader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	close(joined)
	for _, tr := range []*Transfer{bad, good} {
		if err := tr.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if asked != 2*markSize {
		t.Errorf("the other source was asked from byte %d on", asked)
	}
}
