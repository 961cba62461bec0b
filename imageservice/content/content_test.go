package content

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	if cfg.Root == "" {
		cfg.Root = t.TempDir()
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func blob(t *testing.T, size int) ([]byte, ocispec.Descriptor) {
	t.Helper()
	data := make([]byte, size)
	rand.Read(data)
	return data, ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(size)}
}

// left fails when something half-made is there.
func left(t *testing.T, s *Store) {
	t.Helper()
	entries, err := os.ReadDir(s.ingestDir())
	if err != nil || len(entries) > 0 {
		t.Errorf("ingest holds %v, %v", entries, err)
	}
}

func TestPutAndRead(t *testing.T) {
	root := t.TempDir()
	s := open(t, Config{Root: root})
	data, desc := blob(t, 1000)
	for range 2 {
		if err := s.Put(desc.Digest, data); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*Store{s, open(t, Config{Root: root})} {
		got, err := s.Read(desc.Digest, 1000)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if _, err := s.Read(desc.Digest, 999); !errdefs.IsInvalidArgument(err) {
			t.Errorf("over the limit: %v", err)
		}
		if n, files := s.Usage(); n != 1000 || files != 1 {
			t.Errorf("usage %d bytes, %d files", n, files)
		}
	}
	if err := s.Put(desc.Digest+"0", data); !errdefs.IsInvalidArgument(err) {
		t.Errorf("wrong digest: %v", err)
	}
	if err := s.Put(digest.FromString("other"), data); !errdefs.IsDataLoss(err) {
		t.Errorf("another digest: %v", err)
	}
	left(t, s)
	for range 2 {
		if err := s.Delete(desc.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Open(desc.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("deleted: %v", err)
	}
}

func TestFlippedBit(t *testing.T) {
	s := open(t, Config{})
	data, desc := blob(t, 100)
	if err := s.Put(desc.Digest, data); err != nil {
		t.Fatal(err)
	}
	data[50] ^= 1
	if err := os.WriteFile(s.path(desc.Digest), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(desc.Digest, 1000); !errdefs.IsDataLoss(err) {
		t.Error(err)
	}
}

func TestStartDropsIngest(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "ingest"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "ingest", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	left(t, open(t, Config{Root: root}))
}

// piece is a remote blob that comes when the test says so.
type piece struct {
	io.Reader
	closed func()
}

func (p piece) Close() error { p.closed(); return nil }

// whole makes an opener of a source without ranges.
func whole(open func(context.Context) (io.ReadCloser, error)) Opener {
	return func(ctx context.Context, _, _ int64) (Body, error) {
		r, err := open(ctx)
		return Body{ReadCloser: r}, err
	}
}

func TestManyReadersOneTransfer(t *testing.T) {
	s := open(t, Config{})
	data, desc := blob(t, 3<<20)
	pr, pw := io.Pipe()
	var opened atomic.Int32
	opener := func(ctx context.Context) (io.ReadCloser, error) {
		opened.Add(1)
		return pr, nil
	}
	ctx := context.Background()
	var wg sync.WaitGroup
	var transfers []*Transfer
	for range 5 {
		tr, err := s.Fetch(desc, whole(opener))
		if err != nil {
			t.Fatal(err)
		}
		transfers = append(transfers, tr)
		r, err := tr.Reader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer r.Close()
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	if _, err := pw.Write(data); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	wg.Wait()
	for _, tr := range transfers {
		if err := tr.Wait(ctx); err != nil {
			t.Error(err)
		}
		tr.Release()
	}
	if opened.Load() != 1 {
		t.Errorf("opened %d times", opened.Load())
	}
	left(t, s)
}

func TestBrokenOffAndTakenUp(t *testing.T) {
	s := open(t, Config{})
	data, desc := blob(t, 1<<20)
	var opened atomic.Int64
	tr, err := s.Fetch(desc, whole(func(ctx context.Context) (io.ReadCloser, error) {
		// Each time a third more arrives before the cut.
		n := min(len(data), int(opened.Add(1))*len(data)/3+1)
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[:n]), cut{n < len(data)})), nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Release()
	if err := tr.Wait(context.Background()); err != nil {
		t.Error(err)
	}
	if opened.Load() != 3 {
		t.Errorf("opened %d times", opened.Load())
	}
}

// cut breaks off, or ends.
type cut struct{ off bool }

func (c cut) Read([]byte) (int, error) {
	if c.off {
		return 0, io.ErrUnexpectedEOF
	}
	return 0, io.EOF
}

func TestWrongContent(t *testing.T) {
	data, desc := blob(t, 1000)
	flipped := bytes.Clone(data)
	flipped[7] ^= 1
	for name, content := range map[string][]byte{
		"flipped": flipped, "long": append(bytes.Clone(data), 1),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Config{})
			tr, err := s.Fetch(desc, whole(func(context.Context) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(content)), nil
			}))
			if err != nil {
				t.Fatal(err)
			}
			defer tr.Release()
			if err := tr.Wait(context.Background()); !errdefs.IsDataLoss(err) {
				t.Error(err)
			}
			left(t, s)
			if _, ok := s.Size(desc.Digest); ok {
				t.Error("it was stored")
			}
		})
	}
}

func TestAbandoned(t *testing.T) {
	s := open(t, Config{})
	_, desc := blob(t, 1000)
	opened, closed := make(chan struct{}), make(chan struct{})
	opener := func(ctx context.Context) (io.ReadCloser, error) {
		close(opened)
		pr, pw := io.Pipe()
		context.AfterFunc(ctx, func() { pw.CloseWithError(context.Cause(ctx)) })
		return piece{pr, func() { close(closed) }}, nil
	}
	a, err := s.Fetch(desc, whole(opener))
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Fetch(desc, whole(opener))
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Reader(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	<-opened
	a.Release()
	select {
	case <-a.ended:
		t.Fatal("it ended while one still waits")
	default:
	}
	r.Close()
	b.Release()
	if err := b.Wait(context.Background()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-closed
	left(t, s)
}

func TestStall(t *testing.T) {
	s := open(t, Config{StallTimeout: 50 * time.Millisecond})
	_, desc := blob(t, 1000)
	tr, err := s.Fetch(desc, whole(func(ctx context.Context) (io.ReadCloser, error) {
		pr, pw := io.Pipe()
		context.AfterFunc(ctx, func() { pw.CloseWithError(context.Cause(ctx)) })
		return pr, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Release()
	err = tr.Wait(context.Background())
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "stalled") {
		t.Error(err)
	}
}

func TestReaderGivesUp(t *testing.T) {
	s := open(t, Config{})
	_, desc := blob(t, 1000)
	tr, err := s.Fetch(desc, whole(func(ctx context.Context) (io.ReadCloser, error) {
		pr, pw := io.Pipe()
		context.AfterFunc(ctx, func() { pw.CloseWithError(context.Cause(ctx)) })
		return pr, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Release()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	r, err := tr.Reader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
