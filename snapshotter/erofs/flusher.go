package erofs

import (
	"fmt"
	"hash/crc32"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// flusher writes and sums segments, some at one time, in goroutines of its own.
// Those of a layer of some size go past the page cache where the filesystem can:
// a layer is written once and in order, so that caching it costs more than the
// writing, and what is written is on the disk but for a sync of little.
type flusher struct {
	f *os.File
	// direct is f opened for that, or nil.
	direct  *os.File
	full    chan segment
	free    chan []byte
	workers sync.WaitGroup
	// pending counts segments that are not written yet.
	pending sync.WaitGroup

	mu   sync.Mutex
	err  error
	sums map[int64]uint32
	// allocated is how far the file has room for what is to come.
	allocated int64
}

const (
	// spares is how many segments wait to be written, and writers how many
	// are written at one time: each waits for the disk.
	spares  = 6
	writers = 4
	// cachedSegments are written as usual: most layers are smaller, and wait
	// for the disk together in the end.
	cachedSegments = 8
	// ahead is how much room the file gets at once, in bytes, so that
	// segments can be written beside each other.
	ahead = 32 << 20
)

func startFlusher(f *os.File) *flusher {
	fl := &flusher{f: f, full: make(chan segment), free: make(chan []byte, spares), sums: map[int64]uint32{}}
	for range spares {
		fl.free <- nil
	}
	// What is not there, as on tmpfs, is not missed.
	fl.direct, _ = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY|unix.O_DIRECT, 0)
	for range writers {
		fl.workers.Go(fl.run)
	}
	return fl
}

// stop ends the goroutines and waits for them. It may be called twice.
func (fl *flusher) stop() {
	if fl.full == nil {
		return
	}
	close(fl.full)
	fl.workers.Wait()
	fl.full = nil
	if fl.direct != nil {
		fl.direct.Close()
	}
}

// write takes a segment, and gives an empty buffer for it. It waits while many
// are not written yet. An error is told by wait and failure.
func (fl *flusher) write(s segment) (empty []byte) {
	fl.pending.Add(1)
	fl.full <- s
	if empty = <-fl.free; empty == nil {
		empty = newBuffer()
	}
	return empty[:0]
}

// wait returns when all is written, with the first error.
func (fl *flusher) wait() error {
	fl.pending.Wait()
	return fl.failure()
}

// failure is the first error so far.
func (fl *flusher) failure() error {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.err
}

func (fl *flusher) run() {
	for s := range fl.full {
		sum := crc32.Update(0, castagnoli, s.buf)
		sum = crc32.Update(sum, castagnoli, zeros[:segmentSize-len(s.buf)])
		err := fl.put(s)
		fl.mu.Lock()
		fl.sums[s.index] = sum
		if fl.err == nil {
			fl.err = err
		}
		fl.mu.Unlock()
		// Never blocks: there are as many places as buffers.
		fl.free <- s.buf
		fl.pending.Done()
	}
}

// put writes one segment, up to a whole block.
func (fl *flusher) put(s segment) error {
	off := s.index * segmentSize
	if fl.direct != nil && s.index >= cachedSegments {
		fl.allocate(off + segmentSize)
		s.pad(blockSize)
		if _, err := fl.direct.WriteAt(s.buf, off); err == nil {
			return nil
		}
		// Whatever it does not like about it, the usual way tells better.
	}
	_, err := fl.f.WriteAt(s.buf, off)
	return err
}

// allocate makes room up to an offset. That it cannot is told by the writing.
func (fl *flusher) allocate(end int64) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if end <= fl.allocated {
		return
	}
	from := max(fl.allocated, cachedSegments*segmentSize)
	fl.allocated = end + ahead
	_ = unix.Fallocate(int(fl.f.Fd()), 0, from, fl.allocated-from)
}

// newBuffer makes one that begins on a page, as direct writing needs it.
func newBuffer() []byte {
	buf := make([]byte, segmentSize+blockSize)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))) & (blockSize - 1)
	return buf[skip : skip+segmentSize : skip+segmentSize]
}
