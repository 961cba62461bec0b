package erofs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/containerd/errdefs"
)

// Sums are the checksums of an image.
type Sums struct {
	// Size is the image's, in bytes.
	Size int64
	// Segments are CRC-32C of each MiB, the last one as far as it goes.
	Segments []uint32
}

// sumsMagic begins the encoded form.
const sumsMagic = "nasums1\n"

// Encode returns the form in which they are kept: magic, size, sums, and the
// CRC-32C of all that.
func (s *Sums) Encode() []byte {
	buf := binary.LittleEndian.AppendUint64([]byte(sumsMagic), uint64(s.Size))
	for _, sum := range s.Segments {
		buf = binary.LittleEndian.AppendUint32(buf, sum)
	}
	return binary.LittleEndian.AppendUint32(buf, crc32.Checksum(buf, castagnoli))
}

// MaxSums bounds the encoded form, in bytes: that of a 16 TiB image.
const MaxSums = 64 << 20

// DecodeSums reads what Encode wrote, or fails with ErrDataLoss.
func DecodeSums(data []byte) (*Sums, error) {
	if len(data) < len(sumsMagic)+12 || !bytes.HasPrefix(data, []byte(sumsMagic)) {
		return nil, fmt.Errorf("no checksums: %w", errdefs.ErrDataLoss)
	}
	body, sum := data[:len(data)-4], binary.LittleEndian.Uint32(data[len(data)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, fmt.Errorf("damaged checksums: %w", errdefs.ErrDataLoss)
	}
	body = body[len(sumsMagic):]
	s := &Sums{Size: int64(binary.LittleEndian.Uint64(body))}
	for body = body[8:]; len(body) >= 4; body = body[4:] {
		s.Segments = append(s.Segments, binary.LittleEndian.Uint32(body))
	}
	if s.Size < 0 || (s.Size+segmentSize-1)/segmentSize != int64(len(s.Segments)) {
		return nil, fmt.Errorf("checksums of another size: %w", errdefs.ErrDataLoss)
	}
	return s, nil
}

// Verify compares an image with its checksums. It fails with ErrDataLoss at
// the first difference. Each segment read is reported to progress, when that
// is not nil; its error ends verifying.
func (s *Sums) Verify(f *os.File, progress func(bytes int64) error) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() != s.Size {
		return fmt.Errorf("%d bytes in place of %d: %w", fi.Size(), s.Size, errdefs.ErrDataLoss)
	}
	for i, want := range s.Segments {
		got, err := sumSegment(f, int64(i), s.Size)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("the MiB at %d is damaged: %w", int64(i)*segmentSize, errdefs.ErrDataLoss)
		}
		if progress == nil {
			continue
		}
		if err := progress(min(segmentSize, s.Size-int64(i)*segmentSize)); err != nil {
			return err
		}
	}
	return nil
}

// sumSegment reads a segment and sums it.
func sumSegment(f *os.File, seg, size int64) (uint32, error) {
	h := crc32.New(castagnoli)
	length := min(segmentSize, size-seg*segmentSize)
	n, err := io.Copy(h, io.NewSectionReader(f, seg*segmentSize, length))
	if err == nil && n != length {
		err = io.ErrUnexpectedEOF
	}
	return h.Sum32(), err
}

// SetRoot changes owner and mode of the root of an image, and its checksums.
func (s *Sums) SetRoot(f *os.File, uid, gid, mode uint32) error {
	le := binary.LittleEndian
	if _, err := f.WriteAt(le.AppendUint16(nil, uint16(0o040000|mode&0o7777)), rootOffset+modeOffset); err != nil {
		return err
	}
	if _, err := f.WriteAt(le.AppendUint32(le.AppendUint32(nil, uid), gid), rootOffset+uidOffset); err != nil {
		return err
	}
	block := make([]byte, blockSize)
	if _, err := f.ReadAt(block, 0); err != nil {
		return err
	}
	b := block[superOffset:]
	le.PutUint32(b[4:], 0)
	le.PutUint32(b[4:], ^crc32.Checksum(b, castagnoli))
	if _, err := f.WriteAt(b[:superSize], superOffset); err != nil {
		return err
	}
	var err error
	s.Segments[0], err = sumSegment(f, 0, s.Size)
	return err
}

// Root reads owner and mode of the root of an image.
func Root(f *os.File) (uid, gid, mode uint32, err error) {
	var b [inodeSize]byte
	if _, err := f.ReadAt(b[:], rootOffset); err != nil {
		return 0, 0, 0, err
	}
	le := binary.LittleEndian
	return le.Uint32(b[uidOffset:]), le.Uint32(b[uidOffset+4:]), uint32(le.Uint16(b[modeOffset:]) & 0o7777), nil
}
