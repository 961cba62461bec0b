package erofs

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
)

// Writer writes one image. It is for one goroutine. After an error the image
// is worth nothing.
type Writer struct {
	f *os.File
	// data and meta are the segments being filled; next is the first that
	// nobody has.
	data, meta segment
	next       int64
	out        *flusher
	// dirty are segments to be read again for their checksums, because
	// something in them was changed.
	dirty map[int64]bool
	// links counts the names of inodes that have more than one.
	links map[uint64]uint32
	// inodes counts them; the root is the first.
	inodes  uint32
	chunked bool
	scratch []byte
	// whiteout is the number of the inode that all deletions share.
	whiteout, whiteouts uint64
}

// segment is one that is in memory.
type segment struct {
	// index is its place in the image; negative when there is none.
	index int64
	buf   []byte
}

func (s *segment) room() int64 {
	if s.index < 0 {
		return 0
	}
	return segmentSize - int64(len(s.buf))
}

func (s *segment) pos() int64 { return s.index*segmentSize + int64(len(s.buf)) }

// NewWriter starts an image in an empty file, which stays the caller's. Close
// ends it in any case.
func NewWriter(f *os.File) *Writer {
	w := &Writer{
		f: f, next: 1, inodes: 1,
		data:    segment{index: -1},
		meta:    segment{buf: newBuffer()[:rootOffset+inodeSize]},
		out:     startFlusher(f),
		dirty:   map[int64]bool{},
		links:   map[uint64]uint32{},
		scratch: make([]byte, 0, blockSize),
	}
	return w
}

// Close gives back what the writer has, finished or not. The file stays open.
// It may be called twice.
func (w *Writer) Close() { w.out.stop() }

// flush has a segment written, and forgets it.
func (w *Writer) flush(s *segment) {
	if s.index < 0 {
		return
	}
	empty := w.out.write(*s)
	s.index, s.buf = -1, empty
}

var zeros = make([]byte, segmentSize)

// open makes s the next segment. An error is one of those before, so that a
// disk that is full ends the layer, and not when all of it has come.
func (w *Writer) open(s *segment) error {
	w.flush(s)
	if s.buf == nil {
		s.buf = newBuffer()[:0]
	}
	s.index = w.next
	w.next++
	return w.out.failure()
}

// pad fills up to a multiple of align.
func (s *segment) pad(align int64) {
	if over := int64(len(s.buf)) % align; over != 0 {
		s.buf = append(s.buf, zeros[:align-over]...)
	}
}

// place finds a place for an inode and what is behind it, at most a segment
// long. What is within a block does not go over its end when it can be
// avoided: it must not, for the end of a file.
func (w *Writer) place(size int64) error {
	s := &w.meta
	s.pad(slotSize)
	if left := blockSize - int64(len(s.buf))%blockSize; min(size, blockSize) > left && (size <= blockSize || left < inodeSize) {
		s.pad(blockSize)
	}
	if size > s.room() {
		return w.open(s)
	}
	return nil
}

// put writes an inode and what is behind it, and returns its number.
func (w *Writer) put(n *inode, behind []byte) (uint64, error) {
	w.inodes++
	n.ino = w.inodes
	size := int64(inodeSize + len(n.xattrs) + len(behind))
	if size > segmentSize {
		return 0, fmt.Errorf("an inode of %d bytes", size)
	}
	if err := w.place(size); err != nil {
		return 0, err
	}
	nid := uint64(w.meta.pos() / slotSize)
	w.meta.buf = append(n.encode(w.meta.buf), behind...)
	return nid, nil
}

// begin finds a place for a run of data of so many bytes, which must be in
// one piece, and returns its first block.
func (w *Writer) begin(size int64) (uint32, error) {
	if size > w.data.room() && (w.data.index < 0 || w.data.index+1 != w.next) || w.data.room() == 0 {
		if err := w.open(&w.data); err != nil {
			return 0, err
		}
	}
	block := w.data.pos() / blockSize
	if block+size/blockSize >= nullBlock {
		return 0, fmt.Errorf("an image of more than %d blocks", nullBlock)
	}
	return uint32(block), nil
}

// copy appends so many bytes of r to the data, which begin made way for.
func (w *Writer) copy(r io.Reader, size int64) error {
	for size > 0 {
		if w.data.room() == 0 {
			if err := w.open(&w.data); err != nil {
				return err
			}
		}
		at, n := len(w.data.buf), min(size, w.data.room())
		w.data.buf = w.data.buf[:at+int(n)]
		if _, err := io.ReadFull(r, w.data.buf[at:]); err != nil {
			return noEOF(err)
		}
		size -= n
	}
	w.data.pad(blockSize)
	return nil
}

// noEOF tells of content that is shorter than was said.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// File writes a regular file of so many bytes and returns its inode.
func (w *Writer) File(attr Attr, size int64, content io.Reader) (uint64, error) {
	n := &inode{attr: attr, size: size, nlink: 1}
	var err error
	if n.xattrs, err = encodeXattrs(attr.Xattrs); err != nil {
		return 0, err
	}
	tail := size % blockSize
	if tail > maxTail || inodeSize+int64(len(n.xattrs))+tail > blockSize {
		tail = 0
	}
	if rest := size - tail; rest > 0 {
		if n.where, err = w.begin(rest); err != nil {
			return 0, err
		}
		if err := w.copy(content, rest); err != nil {
			return 0, err
		}
	}
	if tail == 0 {
		return w.put(n, nil)
	}
	n.layout = layoutInline
	w.scratch = w.scratch[:tail]
	if _, err := io.ReadFull(content, w.scratch); err != nil {
		return 0, noEOF(err)
	}
	return w.put(n, w.scratch)
}

// Symlink writes a symbolic link.
func (w *Writer) Symlink(attr Attr, target string) (uint64, error) {
	n := &inode{attr: attr, size: int64(len(target)), nlink: 1, layout: layoutInline}
	var err error
	if n.xattrs, err = encodeXattrs(attr.Xattrs); err != nil {
		return 0, err
	}
	if inodeSize+len(n.xattrs)+len(target) > blockSize {
		return w.File(attr, n.size, strings.NewReader(target))
	}
	return w.put(n, []byte(target))
}

// Node writes a device, whose number Device made, or a FIFO.
func (w *Writer) Node(attr Attr, device uint32) (uint64, error) {
	n := &inode{attr: attr, where: device, nlink: 1}
	var err error
	if n.xattrs, err = encodeXattrs(attr.Xattrs); err != nil {
		return 0, err
	}
	return w.put(n, nil)
}

// Whiteout returns an inode that overlayfs takes for a deletion. They all
// share one.
func (w *Writer) Whiteout() (uint64, error) {
	w.whiteouts++
	if w.whiteouts > 1 {
		w.links[w.whiteout] = uint32(w.whiteouts)
		return w.whiteout, nil
	}
	var err error
	w.whiteout, err = w.Node(Attr{Mode: 0o020000}, 0)
	return w.whiteout, err
}

// Link gives an inode of this image another name.
func (w *Writer) Link(nid uint64) {
	if w.links[nid] == 0 {
		w.links[nid] = 1
	}
	w.links[nid]++
}

// Unlink tells that an inode lost a name, which may have been its last.
func (w *Writer) Unlink(nid uint64) {
	if w.links[nid] > 1 {
		w.links[nid]--
	}
}

// patch changes bytes that may be on the disk already.
func (w *Writer) patch(off int64, p []byte) error {
	seg := off / segmentSize
	if seg == w.meta.index {
		copy(w.meta.buf[off%segmentSize:], p)
		return nil
	}
	w.dirty[seg] = true
	_, err := w.f.WriteAt(p, off)
	return err
}

// settle writes the final link counts.
func (w *Writer) settle() error {
	for nid, n := range w.links {
		if err := w.patch(int64(nid)*slotSize+nlinkOffset, binary.LittleEndian.AppendUint32(nil, n)); err != nil {
			return err
		}
	}
	return nil
}
