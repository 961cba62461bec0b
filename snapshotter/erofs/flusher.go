package erofs

import (
	"fmt"
	"hash/crc32"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// flusher writes and sums segments in a goroutine of its own, past the page
// cache where the filesystem can: a layer is written once and in order, so that
// caching it costs more than the writing, and what is written is on the disk
// but for a sync of little.
type flusher struct {
	f *os.File
	// direct is f opened for that, or nil.
	direct *os.File
	full   chan segment
	free   chan []byte
	// synced asks for an answer when all before it is written.
	synced chan chan error
	done   chan struct{}
	// sums are for the goroutine, and for others once nothing is asked of it.
	sums map[int64]uint32
}

// spares is how many segments wait to be written.
const spares = 3

func startFlusher(f *os.File) *flusher {
	fl := &flusher{
		f: f, full: make(chan segment), free: make(chan []byte, spares), synced: make(chan chan error),
		done: make(chan struct{}), sums: map[int64]uint32{},
	}
	for range spares {
		fl.free <- nil
	}
	// What is not there, as on tmpfs, is not missed.
	fl.direct, _ = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY|unix.O_DIRECT, 0)
	go fl.run()
	return fl
}

// stop ends the goroutine and waits for it. It may be called twice.
func (fl *flusher) stop() {
	if fl.full == nil {
		return
	}
	close(fl.full)
	<-fl.done
	fl.full = nil
	if fl.direct != nil {
		fl.direct.Close()
	}
}

// write takes a segment, and gives an empty buffer for it. It waits while many
// are not written yet. An error is told by wait.
func (fl *flusher) write(s segment) (empty []byte) {
	fl.full <- s
	if empty = <-fl.free; empty == nil {
		empty = newBuffer()
	}
	return empty[:0]
}

// wait returns when all is written, with the first error.
func (fl *flusher) wait() error {
	answer := make(chan error, 1)
	fl.synced <- answer
	return <-answer
}

func (fl *flusher) run() {
	defer close(fl.done)
	var failed error
	for {
		select {
		case s, ok := <-fl.full:
			if !ok {
				return
			}
			if err := fl.put(s); failed == nil {
				failed = err
			}
			// Never blocks: there are as many places as buffers.
			fl.free <- s.buf
		case answer := <-fl.synced:
			answer <- failed
		}
	}
}

// put writes one segment, up to a whole block.
func (fl *flusher) put(s segment) error {
	sum := crc32.Update(0, castagnoli, s.buf)
	fl.sums[s.index] = crc32.Update(sum, castagnoli, zeros[:segmentSize-len(s.buf)])
	off := s.index * segmentSize
	if fl.direct != nil {
		s.pad(blockSize)
		if _, err := fl.direct.WriteAt(s.buf, off); err == nil {
			return nil
		}
		// Whatever it does not like about it, the usual way tells better.
	}
	_, err := fl.f.WriteAt(s.buf, off)
	return err
}

// newBuffer makes one that begins on a page, as direct writing needs it.
func newBuffer() []byte {
	buf := make([]byte, segmentSize+blockSize)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))) & (blockSize - 1)
	return buf[skip : skip+segmentSize : skip+segmentSize]
}
