package erofs

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
)

// Finish writes the directories and the superblock. The image is whole then,
// but not yet on the disk. Xattrs of the root are left out.
func (w *Writer) Finish(root *Dir) (*Sums, error) {
	if err := w.out.wait(); err != nil {
		return nil, err
	}
	if err := w.settle(); err != nil {
		return nil, err
	}
	out, err := w.directories(root)
	if err != nil {
		return nil, err
	}
	if err := w.superblock(out.end()); err != nil {
		return nil, err
	}
	if err := w.f.Truncate(out.end()); err != nil {
		return nil, err
	}
	sums := &Sums{Size: out.end()}
	for seg := int64(0); seg*segmentSize < out.end(); seg++ {
		sum, ok := w.out.sums[seg]
		// The last one may be short, and is summed as far as it goes.
		if !ok || w.dirty[seg] || (seg+1)*segmentSize > out.end() {
			if sum, err = sumSegment(w.f, seg, out.end()); err != nil {
				return nil, err
			}
		}
		sums.Segments = append(sums.Segments, sum)
	}
	return sums, nil
}

// directories decides where each directory goes, and then writes them.
func (w *Writer) directories(root *Dir) (*tail, error) {
	w.flush(&w.data)
	// They go on in the last segment when it is one of metadata.
	w.meta.pad(slotSize)
	start := w.meta.pos()
	if w.meta.index+1 != w.next {
		start = w.next * segmentSize
	}
	w.flush(&w.meta)
	if err := w.out.wait(); err != nil {
		return nil, err
	}
	at := start
	err := root.walk(root, func(d, _ *Dir) (err error) {
		at, err = d.layOut(at, d == root)
		w.inodes++
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &tail{f: w.f, pos: start, dirty: w.dirty}
	ino := uint32(0)
	err = root.walk(root, func(d, parent *Dir) error {
		ino++
		return w.directory(out, d, parent, ino)
	})
	if err == nil {
		err = out.flush()
	}
	return out, err
}

// layOut gives a directory its place from an offset on, and returns the next
// free one. It has the order in which directory writes.
func (d *Dir) layOut(at int64, root bool) (int64, error) {
	var err error
	if !root {
		// There is no room for the root's, and layers are not merged by them.
		if d.xattrs, err = encodeXattrs(d.Attr.Xattrs); err != nil {
			return at, err
		}
	}
	d.size = d.measure(d.names())
	d.offset, d.blocks = at, 0
	inline := d.inline()
	if root {
		d.offset = rootOffset
		inline = false
		d.nid = rootOffset / slotSize
	} else {
		size := int64(inodeSize + len(d.xattrs))
		if inline {
			size += d.size
		}
		d.offset = align(at, slotSize)
		if left := blockSize - d.offset%blockSize; size <= blockSize && size > left {
			d.offset = align(d.offset, blockSize)
		}
		d.nid = uint64(d.offset / slotSize)
		at = d.offset + size
	}
	if !inline {
		d.blocks = align(at, blockSize)
		at = d.blocks + align(d.size, blockSize)
	}
	return at, nil
}

func align(n, to int64) int64 { return (n + to - 1) / to * to }

// directory writes one.
func (w *Writer) directory(out *tail, d, parent *Dir, ino uint32) error {
	n := &inode{attr: d.Attr, size: d.size, nlink: d.links(), ino: ino, xattrs: d.xattrs, layout: layoutInline}
	if d.blocks != 0 {
		n.layout, n.where = layoutPlain, uint32(d.blocks/blockSize)
	}
	content := d.content(d.names(), parent)
	if d.offset == rootOffset {
		w.dirty[0] = true
		if _, err := w.f.WriteAt(n.encode(nil), rootOffset); err != nil {
			return err
		}
	} else if err := out.write(d.offset, n.encode(nil)); err != nil {
		return err
	}
	if d.blocks != 0 {
		return out.write(d.blocks, content)
	}
	return out.write(out.pos+int64(len(out.buf)), content)
}

// tail writes what comes last, in order.
type tail struct {
	f     *os.File
	pos   int64
	buf   []byte
	dirty map[int64]bool
}

// write appends p at an offset, which is not before the end.
func (t *tail) write(off int64, p []byte) error {
	if gap := off - t.pos - int64(len(t.buf)); gap > 0 {
		t.buf = append(t.buf, zeros[:gap]...)
	}
	t.buf = append(t.buf, p...)
	if len(t.buf) >= segmentSize {
		return t.flush()
	}
	return nil
}

func (t *tail) flush() error {
	if len(t.buf) == 0 {
		return nil
	}
	if _, err := t.f.WriteAt(t.buf, t.pos); err != nil {
		return err
	}
	for seg := t.pos / segmentSize; seg*segmentSize < t.pos+int64(len(t.buf)); seg++ {
		t.dirty[seg] = true
	}
	t.pos += int64(len(t.buf))
	t.buf = t.buf[:0]
	return nil
}

// end is where the image ends.
func (t *tail) end() int64 { return align(t.pos, blockSize) }

// superblock writes block 0 up to the root's inode.
func (w *Writer) superblock(size int64) error {
	le := binary.LittleEndian
	block := make([]byte, blockSize)
	if _, err := w.f.ReadAt(block, 0); err != nil && err != io.EOF {
		return err
	}
	b := block[superOffset:]
	clear(b[:superSize])
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[8:], compatChecksum|compatMtime)
	b[12] = blockBits
	le.PutUint16(b[14:], rootOffset/slotSize)
	le.PutUint64(b[16:], uint64(w.inodes))
	le.PutUint32(b[36:], uint32(size/blockSize))
	if w.chunked {
		le.PutUint32(b[80:], incompatChunked)
	}
	// Linux sums without inverting in the end.
	le.PutUint32(b[4:], ^crc32.Checksum(b, castagnoli))
	w.dirty[0] = true
	_, err := w.f.WriteAt(block, 0)
	return err
}
