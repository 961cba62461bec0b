package erofs

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/bits"
)

// maxChunks bounds the chunks of one sparse file, so that the list of them
// fits behind its inode in one segment.
const maxChunks = 64 << 10

// Sparse writes a regular file like File, leaving out chunks of zeros.
func (w *Writer) Sparse(attr Attr, size int64, content io.Reader) (uint64, error) {
	if size <= segmentSize {
		return w.File(attr, size, content)
	}
	n := &inode{attr: attr, size: size, nlink: 1, layout: layoutChunks}
	var err error
	if n.xattrs, err = encodeXattrs(attr.Xattrs); err != nil {
		return 0, err
	}
	shift := max(blockBits+4, bits.Len64(uint64((size-1)/maxChunks)))
	n.where = uint32(shift - blockBits)
	// Each chunk starts on a multiple of four.
	list := make([]byte, 0, 4*(size>>shift+1))
	for done := int64(0); done < size; {
		length := min(size-done, 1<<shift)
		block, err := w.chunk(content, length)
		if err != nil {
			return 0, err
		}
		list = binary.LittleEndian.AppendUint32(list, block)
		done += length
	}
	w.chunked = true
	return w.put(n, list)
}

// chunk writes one chunk and returns where, or nullBlock for zeros. It holds
// no more than a part of the chunk in memory: leading zeros are counted and
// written later when something follows.
func (w *Writer) chunk(content io.Reader, length int64) (uint32, error) {
	buf := make([]byte, min(length, 64<<10))
	for skipped := int64(0); skipped < length; {
		part := buf[:min(length-skipped, int64(len(buf)))]
		if _, err := io.ReadFull(content, part); err != nil {
			return 0, noEOF(err)
		}
		if bytes.Equal(part, zeros[:len(part)]) {
			skipped += int64(len(part))
			continue
		}
		block, err := w.begin(length)
		if err != nil {
			return 0, err
		}
		rest := length - skipped - int64(len(part))
		return block, w.copy(io.MultiReader(io.LimitReader(zeroReader{}, skipped), bytes.NewReader(part), io.LimitReader(content, rest)), length)
	}
	return nullBlock, nil
}

// zeroReader gives zeros without end.
type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
