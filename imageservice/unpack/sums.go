package unpack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// The checksums of a directory: a magic, a record for each file in the order
// in which they were written, and a CRC-32C of all that. A record is the
// number of bytes its path shares with the one before, the number and the
// text of those it does not, the size plus one, and the content's CRC-32C. A
// size of zero takes back what was said of the path and all below it.
const sumsMagic = "nafiles1\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sums writes them.
type sums struct {
	buf  []byte
	last string
}

// add notes a file.
func (s *sums) add(path string, size int64, sum uint32) {
	s.path(path)
	s.buf = binary.AppendUvarint(s.buf, uint64(size)+1)
	s.buf = binary.LittleEndian.AppendUint32(s.buf, sum)
}

// remove takes back a path and what is below it.
func (s *sums) remove(path string) {
	s.path(path)
	s.buf = binary.AppendUvarint(s.buf, 0)
}

func (s *sums) path(path string) {
	if s.buf == nil {
		s.buf = []byte(sumsMagic)
	}
	shared := 0
	for shared < min(len(path), len(s.last)) && path[shared] == s.last[shared] {
		shared++
	}
	s.buf = binary.AppendUvarint(s.buf, uint64(shared))
	s.buf = binary.AppendUvarint(s.buf, uint64(len(path)-shared))
	s.buf = append(s.buf, path[shared:]...)
	s.last = path
}

// encode returns all.
func (s *sums) encode() []byte {
	if s.buf == nil {
		s.buf = []byte(sumsMagic)
	}
	return binary.LittleEndian.AppendUint32(s.buf, crc32.Checksum(s.buf, castagnoli))
}

// fileSum is what is known of a file.
type fileSum struct {
	size int64
	sum  uint32
	// order is later for what was written later.
	order int
}

// errSums says that the checksums themselves are damaged.
var errSums = fmt.Errorf("damaged checksums: %w", errdefs.ErrDataLoss)

// decodeSums returns what is known of each file.
func decodeSums(data []byte) (map[string]fileSum, error) {
	if len(data) < len(sumsMagic)+4 || !bytes.HasPrefix(data, []byte(sumsMagic)) {
		return nil, errSums
	}
	body, sum := data[:len(data)-4], binary.LittleEndian.Uint32(data[len(data)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, errSums
	}
	files, removals, last := map[string]fileSum{}, map[string]int{}, ""
	for body = body[len(sumsMagic):]; len(body) > 0; {
		var path string
		var f fileSum
		var removed, ok bool
		path, f, removed, body, ok = decodeSum(body, last)
		if !ok {
			return nil, errSums
		}
		last = path
		f.order = len(data) - len(body)
		if removed {
			removals[path] = f.order
		} else {
			files[path] = f
		}
	}
	for path, f := range files {
		for at := len(path); at > 0 && len(removals) > 0; at = strings.LastIndexByte(path[:at], '/') {
			if removals[path[:at]] > f.order {
				delete(files, path)
				break
			}
		}
	}
	return files, nil
}

// decodeSum reads one record.
func decodeSum(p []byte, last string) (path string, f fileSum, removed bool, rest []byte, ok bool) {
	var n [2]uint64
	for i := range n {
		value, used := binary.Uvarint(p)
		if used <= 0 {
			return
		}
		n[i], p = value, p[used:]
	}
	if n[0] > uint64(len(last)) || n[1] > uint64(len(p)) {
		return
	}
	path, p = last[:n[0]]+string(p[:n[1]]), p[n[1]:]
	size, used := binary.Uvarint(p)
	if used <= 0 || size > 1<<62 {
		return
	}
	p = p[used:]
	if size == 0 {
		return path, f, true, p, true
	}
	if len(p) < 4 {
		return
	}
	f.size, f.sum = int64(size)-1, binary.LittleEndian.Uint32(p)
	return path, f, false, p[4:], true
}

// Verify compares the files of a layer's directory with the checksums that
// Apply returned, and calls bad for each that differs. It fails with
// ErrDataLoss when these are damaged. progress, when not nil, is told of the
// bytes read; what it or bad returns ends verifying.
func Verify(ctx context.Context, dir string, encoded []byte, bad func(path string, err error) error, progress func(bytes int64) error) error {
	files, err := decodeSums(encoded)
	if err != nil {
		return err
	}
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := verifyFile(root, path, files[path]); err != nil {
			err = bad(path, err)
			if err != nil {
				return err
			}
		}
		if progress == nil {
			continue
		}
		if err := progress(files[path].size); err != nil {
			return err
		}
	}
	return nil
}

func verifyFile(root int, path string, want fileSum) error {
	f, err := openBeneath(root, path, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
	}
	defer f.Close()
	h := crc32.New(castagnoli)
	n, err := io.Copy(h, io.LimitReader(f, want.size+1))
	switch {
	case err != nil:
		return err
	case n != want.size:
		return fmt.Errorf("it does not have %d bytes: %w", want.size, errdefs.ErrDataLoss)
	case h.Sum32() != want.sum:
		return fmt.Errorf("its content is damaged: %w", errdefs.ErrDataLoss)
	}
	return nil
}

// openBeneath opens a regular file of a layer, through no links.
func openBeneath(root int, path string, flags uint64) (*os.File, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", path))
	}
	return f, nil
}

// Repair makes the named files of a layer's directory what they are in
// another directory with the same layer: in place, so that links to them and
// who has them open see it; one that is gone is moved over.
func Repair(dir, good string, paths []string) error {
	to, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(to)
	from, err := unix.Open(good, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: good, Err: err}
	}
	defer unix.Close(from)
	for _, path := range paths {
		if err := repairFile(to, from, path); err != nil {
			return fmt.Errorf("repair %s: %w", path, err)
		}
	}
	return nil
}

func repairFile(to, from int, path string) error {
	src, err := openBeneath(from, path, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := openBeneath(to, path, unix.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return moveOver(to, from, path)
	}
	if err != nil {
		return err
	}
	defer dst.Close()
	// A write takes set-id bits and capabilities away.
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	if err := dst.Truncate(fi.Size()); err != nil {
		return err
	}
	if err := unix.Fchmod(int(dst.Fd()), st.Mode&0o7777); err != nil {
		return err
	}
	if err := copyXattrs(int(src.Fd()), int(dst.Fd())); err != nil {
		return err
	}
	if err := futimes(int(dst.Fd()), fi.ModTime()); err != nil {
		return err
	}
	return dst.Sync()
}

// moveOver gives a directory of a layer a file that it lost, if it has the
// directory.
func moveOver(to, from int, path string) error {
	parent, base := split(path)
	toDir, err := openParent(to, parent)
	if err != nil {
		return err
	}
	defer unix.Close(toDir)
	fromDir, err := openParent(from, parent)
	if err != nil {
		return err
	}
	defer unix.Close(fromDir)
	return unix.Renameat(fromDir, base, toDir, base)
}

func openParent(root int, dir string) (int, error) {
	if dir == "" {
		return dup(root)
	}
	return unix.Openat2(root, dir, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}
