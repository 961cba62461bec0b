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
	s         *Store
	algorithm digest.Algorithm
	hash      hash.Hash
	f         *os.File
	written   int64
	renamed   bool
}

func (s *Store) newWriter(algorithm digest.Algorithm) (*writer, error) {
	f, err := os.CreateTemp(s.ingestDir(), "made-")
	if err != nil {
		return nil, err
	}
	return &writer{s: s, algorithm: algorithm, hash: algorithm.Hash(), f: f}, nil
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.hash.Write(p[:n])
	w.written += int64(n)
	return n, err
}

// digest is that of what was written so far.
func (w *writer) digest() digest.Digest { return digest.NewDigest(w.algorithm, w.hash) }

// commit makes what was written the blob that it must be.
func (w *writer) commit(dgst digest.Digest) error {
	if got := w.digest(); got != dgst {
		return fmt.Errorf("the content has digest %s: %w", got, errdefs.ErrDataLoss)
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if err := os.Rename(w.f.Name(), w.s.path(dgst)); err != nil {
		return err
	}
	w.renamed = true
	w.s.blobs[dgst] = w.written
	return nil
}

// discard closes the file, and removes it unless it became a blob.
func (w *writer) discard() {
	w.f.Close()
	if !w.renamed {
		_ = os.Remove(w.f.Name())
	}
}
