package content

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// remote is a source with ranges that notes what was asked of it.
type remote struct {
	data []byte
	// upTo is where it breaks off; zero for nowhere.
	upTo int64
	// delay is before each read.
	delay time.Duration

	mu    sync.Mutex
	asked []string
	sent  int64
}

func (r *remote) open(ctx context.Context, offset, length int64) (Body, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, fmt.Sprintf("%d+%d", offset, length))
	end := int64(len(r.data))
	if length >= 0 {
		end = offset + length
	}
	return Body{ReadCloser: &remoteBody{r: r, ctx: ctx, pos: offset, end: end}, Offset: offset}, nil
}

type remoteBody struct {
	r        *remote
	ctx      context.Context
	pos, end int64
}

func (b *remoteBody) Read(p []byte) (int, error) {
	if b.r.delay > 0 {
		if err := pause(b.ctx, b.r.delay); err != nil {
			return 0, err
		}
	}
	end := b.end
	if b.r.upTo > 0 && b.pos >= b.r.upTo {
		return 0, errors.New("broken for good")
	}
	if b.pos == end {
		return 0, io.EOF
	}
	if b.r.upTo > 0 {
		end = min(end, b.r.upTo)
	}
	n := copy(p, b.r.data[b.pos:end])
	b.pos += int64(n)
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	b.r.sent += int64(n)
	return n, nil
}

func (b *remoteBody) Close() error { return nil }

// fetch fetches a blob and waits.
func fetch(t *testing.T, s *Store, desc ocispec.Descriptor, open Opener) error {
	t.Helper()
	tr, err := s.Fetch(desc, open)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Release()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return tr.Wait(ctx)
}

// What had arrived is not fetched again, by a process started later neither.
func TestResume(t *testing.T) {
	root := t.TempDir()
	data, desc := blob(t, 20<<20+5)
	r := &remote{data: data, upTo: 11<<20 + 7}
	s := open(t, Config{Root: root})
	if err := fetch(t, s, desc, r.open); err == nil {
		t.Fatal("it did not break off")
	}
	s.Close()
	s = open(t, Config{Root: root})
	again := &remote{data: data}
	if err := fetch(t, s, desc, again.open); err != nil {
		t.Fatal(err)
	}
	if want := int64(len(data) - 11<<20); again.sent != want {
		t.Errorf("fetched %d bytes again, want %d (%v)", again.sent, want, again.asked)
	}
	if got, err := s.Read(desc.Digest, desc.Size); err != nil || !bytes.Equal(got, data) {
		t.Error(len(got), err)
	}
	left(t, s)
}

// A torn rest of an earlier transfer is found out, and not used again.
func TestResumeTorn(t *testing.T) {
	data, desc := blob(t, 10<<20)
	r := &remote{data: data, upTo: 5 << 20}
	s := open(t, Config{})
	if err := fetch(t, s, desc, r.open); err == nil {
		t.Fatal("it did not break off")
	}
	f, err := os.OpenFile(s.partPath(desc.Digest), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 1000), 1<<20); err != nil {
		t.Fatal(err)
	}
	again := &remote{data: data}
	err = fetch(t, s, desc, again.open)
	var damaged *DamagedError
	if !errors.As(err, &damaged) || !damaged.Resumed || !errdefs.IsDataLoss(err) {
		t.Fatal(err)
	}
	left(t, s)
	if err := fetch(t, s, desc, again.open); err != nil {
		t.Fatal(err)
	}
}

// A blob that a broken pull brought comes back without the network, verified.
func TestDemote(t *testing.T) {
	data, desc := blob(t, 3<<20+1)
	s := open(t, Config{})
	if err := s.Put(desc.Digest, data); err != nil {
		t.Fatal(err)
	}
	if err := s.Demote(desc.Digest); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Size(desc.Digest); ok {
		t.Error("it is still there")
	}
	r := &remote{data: data}
	if err := fetch(t, s, desc, r.open); err != nil || r.sent > 0 {
		t.Error(err, r.asked)
	}
	if err := s.Demote(desc.Digest); err != nil {
		t.Fatal(err)
	}
	if n, err := s.dropPartials(0); err != nil || n != desc.Size {
		t.Error(n, err)
	}
	left(t, s)
}

// A slow source that has ranges is asked for several at once, and what comes
// out of order is read in order.
func TestParallelRanges(t *testing.T) {
	data, desc := blob(t, 48<<20)
	r := &remote{data: data, delay: 10 * time.Millisecond}
	s := open(t, Config{})
	tr, err := s.Fetch(desc, r.open)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Release()
	reader, err := tr.Reader(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	got, err := io.ReadAll(reader)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatal(len(got), err)
	}
	if err := tr.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(r.asked) < 3 {
		t.Errorf("asked for %v", r.asked)
	}
	left(t, s)
}
