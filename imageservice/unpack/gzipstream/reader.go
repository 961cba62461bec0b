// Package gzipstream decompresses gzip (RFC 1952) for one purpose: layers of
// images, of which inflating is the dearest part. It reads eight bytes of input
// at a time, decodes up to four literals for each, and copies matches by words,
// which takes about half the time of decoders that go by bytes.
//
// Input is hostile: tables are built of checked code lengths alone, distances
// are checked against what was written, and memory is fixed.
package gzipstream

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// Errors of bytes that are not gzip. A stream that ends early fails with
// io.ErrUnexpectedEOF.
var (
	ErrHeader   = errors.New("gzip: invalid header")
	ErrChecksum = errors.New("gzip: invalid checksum")
	ErrCorrupt  = errors.New("gzip: corrupt data")
)

const (
	inSize = 128 << 10
	// padding follows the input's end, so that whole words can be read.
	padding = 64
	window  = 32 << 10
	outSize = window + 256<<10
	// slack is what one step may write: a match, four literals and the
	// rest of two words.
	slack = 258 + 4 + 16
)

// Reader decompresses a stream of one or more members. It is for one goroutine.
type Reader struct{ z *decoder }

// decoder is what a Reader has until it is closed.
type decoder struct {
	progress
	// in[pos:end] is input not looked at; at its end zeros follow.
	in [inSize + padding]byte
	// out[oldest:written] is what matches may refer to, out[given:written]
	// what was not read yet.
	out  [outSize + slack]byte
	lit  [litEntries]uint32
	dist [distEntries]uint32
}

// progress is how far a decoder has come; without it, what a decoder had
// before means nothing.
type progress struct {
	src      io.Reader
	pos, end int
	eof      bool
	// bits holds count bits of input; those above it mean nothing.
	bits  uint64
	count uint

	oldest, given, written int
	sum, size              uint32

	// stored is what is left of a block without compression.
	stored int
	state  state
	last   bool
	err    error
}

// state is what comes next in the input.
type state int

const (
	member state = iota
	block
	storedBlock
	codedBlock
	trailer
)

// decoders are those of streams that ended.
var decoders = sync.Pool{New: func() any { return new(decoder) }}

// NewReader reads the first header.
func NewReader(r io.Reader) (*Reader, error) {
	z := decoders.Get().(*decoder)
	z.progress = progress{src: r}
	if err := z.header(); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return &Reader{z}, nil
}

// Read reads decompressed bytes.
func (r *Reader) Read(p []byte) (int, error) {
	if r.z == nil {
		return 0, os.ErrClosed
	}
	return r.z.Read(p)
}

// Close frees what the reader has. The source stays open.
func (r *Reader) Close() error {
	if r.z != nil {
		r.z.progress = progress{}
		decoders.Put(r.z)
		r.z = nil
	}
	return nil
}

// Read reads decompressed bytes.
func (z *decoder) Read(p []byte) (int, error) {
	for z.given == z.written {
		if z.err != nil {
			return 0, z.err
		}
		z.slide()
		start := z.written
		z.err = z.produce()
		z.sum = crc32.Update(z.sum, crc32.IEEETable, z.out[start:z.written])
		z.size += uint32(z.written - start)
		if z.err == nil && z.state == trailer {
			z.err = z.endMember()
		}
	}
	n := copy(p, z.out[z.given:z.written])
	z.given += n
	return n, nil
}

// slide makes room in the output, all of which was given.
func (z *decoder) slide() {
	if z.written < outSize {
		return
	}
	move := z.written - window
	copy(z.out[:window], z.out[move:z.written])
	z.written, z.given, z.oldest = window, window, max(z.oldest-move, 0)
}

// produce writes until the output is full or the member ends.
func (z *decoder) produce() error {
	for z.written < outSize && z.state != trailer {
		if err := z.step(); err != nil {
			if err == ErrCorrupt && z.overrun() {
				// It was the zeros behind the end that made no sense.
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// step goes on in the input, until its kind changes or the output is full.
func (z *decoder) step() error {
	if z.state == member {
		return z.header()
	}
	if err := z.fill(); err != nil {
		return err
	}
	switch z.state {
	case block:
		return z.blockHeader()
	case storedBlock:
		return z.copyStored()
	}
	before := z.written
	err := z.inflate()
	if z.overrun() {
		// It was made of the zeros behind the end.
		z.written = before
		return io.ErrUnexpectedEOF
	}
	return err
}

// endBlock is what comes after a block.
func (z *decoder) endBlock() {
	z.state = block
	if z.last {
		z.state = trailer
	}
}

// header reads a member's header. That nothing is there is the end.
func (z *decoder) header() error {
	var h [10]byte
	z.sum = 0
	for i := range h {
		c, err := z.next()
		if err != nil {
			if err == io.EOF && i > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		h[i] = c
	}
	const headerCRC, extra, name, comment = 2, 4, 8, 16
	flags := h[3]
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 {
		return ErrHeader
	}
	if flags&extra != 0 {
		n, err := z.number(2)
		if err != nil {
			return err
		}
		if err := z.skip(int(n)); err != nil {
			return err
		}
	}
	for _, text := range []byte{name, comment} {
		if flags&text == 0 {
			continue
		}
		if err := z.skipText(); err != nil {
			return err
		}
	}
	if flags&headerCRC != 0 {
		want := z.sum & 0xffff
		if got, err := z.number(2); err != nil {
			return err
		} else if got != want {
			return ErrHeader
		}
	}
	z.oldest, z.sum, z.size, z.last, z.state = z.written, 0, 0, false, block
	return nil
}

// maxText bounds the name and the comment in a header.
const maxText = 64 << 10

func (z *decoder) skipText() error {
	for range maxText {
		c, err := z.must()
		if err != nil || c == 0 {
			return err
		}
	}
	return ErrHeader
}

func (z *decoder) skip(n int) error {
	for range n {
		if _, err := z.must(); err != nil {
			return err
		}
	}
	return nil
}

// number reads a little-endian number of n bytes.
func (z *decoder) number(n int) (v uint32, err error) {
	for i := range n {
		c, err := z.must()
		if err != nil {
			return 0, err
		}
		v |= uint32(c) << (8 * i)
	}
	return v, nil
}

// endMember checks the sums of a member.
func (z *decoder) endMember() error {
	z.align()
	sum, err := z.number(4)
	if err != nil {
		return err
	}
	size, err := z.number(4)
	if err != nil {
		return err
	}
	if sum != z.sum || size != z.size {
		return ErrChecksum
	}
	z.state = member
	return nil
}

// fill reads more input unless there is enough for a step.
func (z *decoder) fill() error {
	for !z.eof && z.end-z.pos < padding {
		// Bytes in hand may be given back.
		from := max(z.pos-8, 0)
		copy(z.in[:], z.in[from:z.end])
		z.end -= from
		z.pos -= from
		n, err := z.src.Read(z.in[z.end:inSize])
		z.end += n
		if err == io.EOF {
			z.eof = true
			clear(z.in[z.end : z.end+padding])
		} else if err != nil {
			return err
		}
	}
	if z.overrun() {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// overrun tells whether bits behind the input's end were used.
func (z *decoder) overrun() bool { return z.eof && z.pos-int(z.count/8) > z.end }

// refill has at least 56 bits in hand. fill was called for every 32 bytes used.
func (z *decoder) refill() {
	z.bits |= binary.LittleEndian.Uint64(z.in[z.pos:]) << (z.count & 63)
	z.pos += int(63-z.count) >> 3
	z.count |= 56
}

// take uses n bits, at most 32. fill and refill were called.
func (z *decoder) take(n uint) uint32 {
	v := uint32(z.bits & (1<<n - 1))
	z.bits >>= n
	z.count -= n
	return v
}

// align drops the bits up to the next byte, and gives whole bytes back.
func (z *decoder) align() {
	z.pos -= int(z.count / 8)
	z.bits, z.count = 0, 0
}

// must is next where something has to be.
func (z *decoder) must() (byte, error) {
	c, err := z.next()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return c, err
}

// next is one byte of input; no bits are in hand.
func (z *decoder) next() (byte, error) {
	if z.pos >= z.end {
		if err := z.fill(); err != nil {
			return 0, err
		}
		if z.pos >= z.end {
			return 0, io.EOF
		}
	}
	z.pos++
	if z.state == member {
		z.sum = crc32.Update(z.sum, crc32.IEEETable, z.in[z.pos-1:z.pos])
	}
	return z.in[z.pos-1], nil
}
