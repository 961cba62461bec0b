// Package content keeps blobs by their digest: manifests, configurations and
// layers as they came from a registry.
//
//	<root>/blobs/<algorithm>/<hex>   whole blobs, verified
//	<root>/ingest/…                  what is arriving, or broke off
//
// A blob appears under its digest by one rename, after its bytes were hashed.
// Blobs are not synced one by one: who makes something durable that refers
// to blobs calls Sync before it writes the reference, and deletes at start
// what no reference names, so that a blob torn by a power cut is never used.
//
// Errors are ErrNotFound, ErrInvalidArgument for a digest that is none,
// ErrDataLoss for bytes that do not match digest or size.
package content

import (
	"context"
	_ "crypto/sha256" // digests
	_ "crypto/sha512" // digests
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// MaxBlob is how big a blob may be, in bytes: what is kept in memory of one
// that arrives grows with its size.
const MaxBlob = 1 << 40

const (
	// smallBlob is the size up to which a blob is small, in bytes.
	smallBlob = 64 << 10
	// smallDownloads bounds transfers of small blobs at one time, and
	// maxDownloads those of others.
	smallDownloads = 8
	maxDownloads   = 4
)

// Config says where blobs are and how they arrive.
type Config struct {
	// Root is created, private to root, when it is not there.
	Root string
	// StallTimeout is how long a connection may go on with next to nothing
	// arriving; zero means 10 seconds. After that it is made anew, and the
	// transfer fails when that happens again.
	StallTimeout time.Duration
}

// Store is a folder of blobs. Its methods may be called at once from many
// goroutines. One process may open a root.
type Store struct {
	root      string
	stall     time.Duration
	downloads *semaphore.Weighted
	// small are the places of small blobs, so that a manifest need not
	// wait for layers of other images.
	small   *semaphore.Weighted
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	// received counts the bytes that transfers brought.
	received atomic.Int64

	// mu guards what follows.
	mu        sync.Mutex
	blobs     map[digest.Digest]int64
	transfers map[transferKey]*Transfer
	// arriving are the blobs whose unfinished files are open; left is
	// signalled when that changes.
	arriving map[digest.Digest]bool
	left     *sync.Cond
}

// New opens a store. What was arriving when the last process ended is there for
// the next Fetch of it, for a day. Close ends transfers.
func New(cfg Config) (*Store, error) {
	if cfg.StallTimeout <= 0 {
		cfg.StallTimeout = 10 * time.Second
	}
	s := &Store{
		root:      cfg.Root,
		stall:     cfg.StallTimeout,
		downloads: semaphore.NewWeighted(maxDownloads),
		small:     semaphore.NewWeighted(smallDownloads),
		blobs:     map[digest.Digest]int64{},
		transfers: map[transferKey]*Transfer{},
		arriving:  map[digest.Digest]bool{},
	}
	s.left = sync.NewCond(&s.mu)
	if err := s.clearIngest(); err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	for _, dir := range []string{s.root, s.ingestDir(), filepath.Join(s.root, "blobs")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open content store: %w", err)
		}
	}
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		if err := s.load(alg); err != nil {
			return nil, fmt.Errorf("open content store: %w", err)
		}
	}
	if _, err := s.dropPartials(keepPartial); err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// load notes the blobs of one algorithm.
func (s *Store) load(alg digest.Algorithm) error {
	dir := filepath.Join(s.root, "blobs", alg.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dgst := digest.NewDigestFromEncoded(alg, e.Name())
		fi, err := e.Info()
		if dgst.Validate() != nil || err != nil || !fi.Mode().IsRegular() {
			continue
		}
		s.blobs[dgst] = fi.Size()
	}
	return nil
}

// Close ends all transfers and waits for them.
func (s *Store) Close() error {
	s.mu.Lock()
	s.cancel() // and no transfer begins any more
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

func (s *Store) ingestDir() string { return filepath.Join(s.root, "ingest") }

// path is where a blob belongs. dgst is valid.
func (s *Store) path(dgst digest.Digest) string {
	return filepath.Join(s.root, "blobs", dgst.Algorithm().String(), dgst.Encoded())
}

// Size returns the size of a blob, in bytes, and whether it is there.
func (s *Store) Size(dgst digest.Digest) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.blobs[dgst]
	return n, ok
}

// Digests lists all blobs.
func (s *Store) Digests() []digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]digest.Digest, 0, len(s.blobs))
	for d := range s.blobs {
		list = append(list, d)
	}
	return list
}

// Received is how many bytes transfers brought since the store was opened.
func (s *Store) Received() int64 { return s.received.Load() }

// Usage returns the bytes and the number of all blobs, from memory.
func (s *Store) Usage() (bytes, files int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.blobs {
		bytes += n
	}
	return bytes, int64(len(s.blobs))
}

// Open opens a blob for reading. The caller closes it.
func (s *Store) Open(dgst digest.Digest) (*os.File, error) {
	if err := dgst.Validate(); err != nil {
		return nil, fmt.Errorf("open blob %q: %w: %w", dgst, err, errdefs.ErrInvalidArgument)
	}
	f, err := openFile(s.path(dgst), unix.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open blob %s: %w", dgst, errdefs.ErrNotFound)
	}
	return f, err
}

// Read reads a whole blob of at most limit bytes and verifies it again.
func (s *Store) Read(dgst digest.Digest, limit int64) ([]byte, error) {
	f, err := s.Open(dgst)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", dgst, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read blob %s: more than %d bytes: %w", dgst, limit, errdefs.ErrInvalidArgument)
	}
	if dgst.Algorithm().FromBytes(data) != dgst {
		return nil, fmt.Errorf("read blob %s: its content has another digest: %w", dgst, errdefs.ErrDataLoss)
	}
	return data, nil
}

// Put stores a blob that is in memory. That it is there already is fine.
func (s *Store) Put(dgst digest.Digest, data []byte) error {
	if err := dgst.Validate(); err != nil {
		return fmt.Errorf("store blob %q: %w: %w", dgst, err, errdefs.ErrInvalidArgument)
	}
	if _, ok := s.Size(dgst); ok {
		return nil
	}
	w, err := s.newWriter(dgst.Algorithm())
	if err == nil {
		defer w.discard()
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.commit(dgst)
	}
	if err != nil {
		return fmt.Errorf("store blob %s: %w", dgst, err)
	}
	return nil
}

// Delete removes a blob. One that is not there is not an error. Readers that
// have it open go on.
func (s *Store) Delete(dgst digest.Digest) error {
	if err := dgst.Validate(); err != nil {
		return fmt.Errorf("delete blob %q: %w: %w", dgst, err, errdefs.ErrInvalidArgument)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deleteLocked(dgst)
}

// deleteLocked is Delete with mu held.
func (s *Store) deleteLocked(dgst digest.Digest) error {
	if err := os.Remove(s.path(dgst)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete blob: %w", err)
	}
	delete(s.blobs, dgst)
	return nil
}

// Sync waits until everything in the store's filesystem is on the disk.
func (s *Store) Sync() error {
	d, err := os.Open(s.root)
	if err != nil {
		return fmt.Errorf("sync content: %w", err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync content: %w", err)
	}
	return nil
}
