package unpack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/nodeagent/nodeagent/imageservice/unpack/gzipstream"
)

// maxWindow bounds the memory one zstd stream asks for; it is what zstd's
// highest level without --long takes.
const maxWindow = 128 << 20

// Decompress looks at the first bytes of a stream, not at what anybody calls
// it, and returns its plain form. Close the result to free the decoder; r
// stays open.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	// Small, so that decoders which read much at once read past it.
	br := bufio.NewReaderSize(r, 32<<10)
	magic, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, streamError(err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzipstream.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("read layer: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		return z, nil
	case isZstd(magic):
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, fmt.Errorf("read layer: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(magic, []byte("BZh")), bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		return nil, fmt.Errorf("it is compressed by bzip2 or xz, which are not read; gzip and zstd are: %w", errdefs.ErrInvalidArgument)
	}
	return io.NopCloser(br), nil
}

// isZstd knows a frame, and the skippable frames that may come first.
func isZstd(magic []byte) bool {
	return bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(magic) >= 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:4], []byte{0x2a, 0x4d, 0x18})
}

// isCorrupt knows what decoders say of bytes that they did not write.
func isCorrupt(err error) bool {
	for _, known := range []error{
		gzipstream.ErrChecksum, gzipstream.ErrHeader, gzipstream.ErrCorrupt, zstd.ErrMagicMismatch, zstd.ErrCRCMismatch, zstd.ErrReservedBlockType,
		zstd.ErrCompressedSizeTooBig, zstd.ErrBlockTooSmall, zstd.ErrUnexpectedBlockSize,
		zstd.ErrWindowSizeTooSmall, zstd.ErrWindowSizeExceeded, zstd.ErrUnknownDictionary, zstd.ErrFrameSizeExceeded, zstd.ErrFrameSizeMismatch,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// ahead reads a stream from a goroutine of its own, a few buffers ahead, so
// that decompressing goes on while files are written. A stream that fits in the
// first buffer needs no goroutine.
type ahead struct {
	r     io.ReadCloser
	full  chan piece
	empty chan []byte
	stop  chan struct{}
	// done is closed when the goroutine has ended; nil before it began.
	done chan struct{}
	// cur is what is being read; rest is what is left of it.
	cur  []byte
	rest []byte
	err  error
}

type piece struct {
	buf []byte
	n   int
	err error
}

const (
	aheadBuffers = 4
	aheadSize    = 512 << 10
)

// aheadPool has the buffers of streams that ended, for the many small layers
// that some images have.
var aheadPool = sync.Pool{New: func() any { return make([]byte, aheadSize) }}

// readAhead takes a stream over; wait ends reading, and closes it.
func readAhead(r io.ReadCloser) *ahead {
	return &ahead{r: r}
}

// start starts the goroutine, one buffer being in use.
func (a *ahead) start() {
	a.full = make(chan piece, aheadBuffers)
	a.empty = make(chan []byte, aheadBuffers)
	a.stop = make(chan struct{})
	a.done = make(chan struct{})
	for range aheadBuffers - 1 {
		a.empty <- nil
	}
	go a.run()
}

func (a *ahead) run() {
	defer close(a.done)
	for {
		select {
		case <-a.stop:
			return
		case buf := <-a.empty:
			p := a.read(buf)
			// Never blocks: there are as many places as buffers.
			a.full <- p
			if p.err != nil {
				return
			}
		}
	}
}

// read fills a buffer.
func (a *ahead) read(buf []byte) piece {
	if buf == nil {
		buf = aheadPool.Get().([]byte)
	}
	// Not io.ReadFull, which says of a short last buffer what a decoder says of
	// a stream that is cut.
	n, err := 0, error(nil)
	for n < len(buf) && err == nil {
		var more int
		more, err = a.r.Read(buf[n:])
		n += more
	}
	return piece{buf, n, err}
}

// next waits for another buffer.
func (a *ahead) next() piece {
	if a.cur == nil {
		return a.read(nil)
	}
	if a.done == nil {
		a.start()
	}
	a.empty <- a.cur
	return <-a.full
}

// Read is for one goroutine.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		next := a.next()
		a.cur, a.rest, a.err = next.buf, next.buf[:next.n], next.err
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// wait ends reading, and the goroutine. What it reads from must not block for
// ever.
func (a *ahead) wait() {
	bufs := [][]byte{a.cur}
	if a.done != nil {
		close(a.stop)
		<-a.done
		close(a.empty)
		close(a.full)
		for buf := range a.empty {
			bufs = append(bufs, buf)
		}
		for p := range a.full {
			bufs = append(bufs, p.buf)
		}
	}
	a.r.Close()
	a.cur, a.rest, a.err = nil, nil, os.ErrClosed
	for _, buf := range bufs {
		if buf != nil {
			aheadPool.Put(buf)
		}
	}
}

// bounded fails when more comes than a layer may have.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("it unpacks to more than a layer may have: %w", errdefs.ErrInvalidArgument)
	}
	return n, err
}
