package nodeapi

import (
	"bufio"
	"errors"
	"io"

	"github.com/containerd/errdefs"
)

// chunkSize is how many bytes one message of a stream carries.
const chunkSize = 256 << 10

// sendChunks gives write a writer whose bytes are sent in messages. What is
// sent is the sender's only until send returns.
func sendChunks(send func(data []byte) error, write func(io.Writer) error) error {
	w := bufio.NewWriterSize(chunkWriter(send), chunkSize)
	if err := write(w); err != nil {
		return err
	}
	return w.Flush()
}

type chunkWriter func([]byte) error

// Write sends messages of at most chunkSize.
func (c chunkWriter) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n := min(chunkSize, len(p)-sent)
		if err := c(p[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(p), nil
}

// chunkReader reads the data messages of a client; receive returns io.EOF
// after the last one. It is for one goroutine.
type chunkReader struct {
	receive func() ([]byte, error)
	rest    []byte
	err     error
}

// Read returns data as it comes.
func (c *chunkReader) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		c.rest, c.err = c.receive()
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// brokenOff is a client that went away in the middle, which is not the end of
// what it sent.
func brokenOff(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return errors.Join(err, errdefs.ErrAborted)
}
