package content

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
)

// Produce stores what write writes, whose digest nobody knows before, and
// returns it with the size. keep is called with the digest before the blob is
// in the store, so that its owner can hold on to it first. That it is there
// already is fine.
func (s *Store) Produce(write func(io.Writer) error, keep func(digest.Digest)) (digest.Digest, int64, error) {
	w, err := s.newWriter(digest.SHA256)
	if err != nil {
		return "", 0, fmt.Errorf("store new blob: %w", err)
	}
	defer w.discard()
	buffered := bufio.NewWriterSize(w, 256<<10)
	if err = write(buffered); err == nil {
		err = buffered.Flush()
	}
	dgst := w.digest()
	if err == nil {
		keep(dgst)
		if n, ok := s.Size(dgst); ok {
			return dgst, n, nil
		}
		err = w.commit(dgst)
	}
	if err != nil {
		return "", 0, fmt.Errorf("store new blob: %w", err)
	}
	return dgst, w.written, nil
}

// Spool returns a file without a name beside the blobs, for what arrives
// before anybody knows what it is. Closing it frees its space.
func (s *Store) Spool() (*os.File, error) {
	f, err := os.CreateTemp(s.ingestDir(), "spool-")
	if err != nil {
		return nil, fmt.Errorf("make spool file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("make spool file: %w", err)
	}
	return f, nil
}
