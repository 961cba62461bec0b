package content

import (
	"fmt"
	"hash"
	"os"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// writer takes the bytes of one blob and hashes them on the way.
type writer struct {
	s    *Store
	dgst digest.Digest
	// size is what is promised; negative when nothing is.
	size    int64
	hash    hash.Hash
	f       *os.File
	written int64
	renamed bool
}

func (s *Store) newWriter(dgst digest.Digest, size int64) (*writer, error) {
	f, err := os.CreateTemp(s.ingestDir(), dgst.Encoded()[:12]+"-")
	if err != nil {
		return nil, err
	}
	return &writer{s: s, dgst: dgst, size: size, hash: dgst.Algorithm().Hash(), f: f}, nil
}

// Write refuses more bytes than were promised.
func (w *writer) Write(p []byte) (int, error) {
	if w.size >= 0 && w.written+int64(len(p)) > w.size {
		return 0, fmt.Errorf("more than the %d bytes announced: %w", w.size, errdefs.ErrDataLoss)
	}
	n, err := w.f.Write(p)
	w.hash.Write(p[:n])
	w.written += int64(n)
	return n, err
}

// commit verifies what was written and makes it the blob. The file stays
// open for readers until discard.
func (w *writer) commit() error {
	if w.size >= 0 && w.written != w.size {
		return fmt.Errorf("%d bytes in place of %d: %w", w.written, w.size, errdefs.ErrDataLoss)
	}
	if got := digest.NewDigest(w.dgst.Algorithm(), w.hash); got != w.dgst {
		return fmt.Errorf("the content has digest %s: %w", got, errdefs.ErrDataLoss)
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if err := os.Rename(w.f.Name(), w.s.path(w.dgst)); err != nil {
		return err
	}
	w.renamed = true
	w.s.blobs[w.dgst] = w.written
	return nil
}

// discard closes the file, and removes it unless it became a blob.
func (w *writer) discard() {
	w.f.Close()
	if !w.renamed {
		_ = os.Remove(w.f.Name())
	}
}
