package recorder

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const segmentSuffix = ".entries"

// ring is the segments. Only one goroutine appends.
type ring struct {
	dir      string
	bytes    int64
	segments int

	file *os.File
	// number and size are the open segment's.
	number uint64
	size   int64
}

func openRing(dir string, bytes int64, segments int) (*ring, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	r := &ring{dir: dir, bytes: bytes, segments: segments}
	numbers, err := segmentNumbers(dir)
	if err != nil {
		return nil, err
	}
	r.number = 1
	if len(numbers) > 0 {
		r.number = numbers[len(numbers)-1]
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	if err := r.mend(); err != nil {
		// What cannot be mended is left as it is, and not written to.
		if err := errors.Join(r.close(), r.next()); err != nil {
			return nil, err
		}
	}
	return r, r.trim()
}

// segmentNumbers lists the segments, the oldest first.
func segmentNumbers(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		if n, err := strconv.ParseUint(name, 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%012d%s", number, segmentSuffix))
}

func (r *ring) open() error {
	f, err := os.OpenFile(segmentPath(r.dir, r.number), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.file, r.size = f, info.Size()
	return nil
}

// mend cuts off a last line that was not written whole.
func (r *ring) mend() error {
	tail := make([]byte, min(r.size, maxEntry))
	if _, err := r.file.ReadAt(tail, r.size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(tail) == 0 || tail[len(tail)-1] == '\n' {
		return nil
	}
	last := bytes.LastIndexByte(tail, '\n')
	if last < 0 && int64(len(tail)) < r.size {
		return fmt.Errorf("%s has no lines", r.file.Name())
	}
	end := r.size - int64(len(tail)) + int64(last+1)
	if err := r.file.Truncate(end); err != nil {
		return err
	}
	r.size = end
	return nil
}

// append writes whole lines. One that is not written whole is cut off again,
// so that the next begins on a line of its own.
func (r *ring) append(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	if r.file == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	if r.size > 0 && r.size+int64(len(lines)) > r.bytes {
		if err := errors.Join(r.close(), r.next(), r.trim()); err != nil {
			return err
		}
	}
	n, err := r.file.Write(lines)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, r.file.Truncate(r.size))
		}
		return err
	}
	r.size += int64(n)
	return nil
}

// next opens a new segment.
func (r *ring) next() error {
	r.number++
	return r.open()
}

// trim removes the oldest segments beyond the limit.
func (r *ring) trim() error {
	numbers, err := segmentNumbers(r.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range numbers[:max(0, len(numbers)-r.segments)] {
		if err := os.Remove(segmentPath(r.dir, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r *ring) close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}
