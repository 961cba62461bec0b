// Package atomicfile replaces files as a whole: a reader sees the old content
// or the new one, and a killed writer leaves at most a temporary file, whose
// name IsTemp knows.
//
// A disk that is full is the exception: there is no room for a temporary file
// then, and what gives room back must still be noted. A file that is there and
// has the room is written over; a power cut in that moment may tear it.
package atomicfile

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tempMark stands in the names of temporary files.
const tempMark = ".tmp-"

// Write puts data at path by way of a temporary file and rename(2), with
// exactly the permissions perm. It does not wait for the disk: after a power
// cut the file may be the old one, the new one, empty or missing, so content
// written this way needs a checksum, or a place that a reboot empties anyway.
func Write(path string, data []byte, perm os.FileMode) error {
	return write(path, data, perm, false)
}

// WriteSync is Write that returns once content and name are on the disk.
func WriteSync(path string, data []byte, perm os.FileMode) error {
	return write(path, data, perm, true)
}

// IsTemp reports whether name is that of a temporary file a killed writer
// may have left, to be removed at start.
func IsTemp(name string) bool {
	base := filepath.Base(name)
	return strings.HasPrefix(base, ".") && strings.Contains(base, tempMark)
}

func write(path string, data []byte, perm os.FileMode, sync bool) error {
	err := replace(path, data, perm, sync)
	if isFull(err) && writeOver(path, data, perm, sync) == nil {
		return nil
	}
	return err
}

// isFull tells that there is no room, for bytes or for files.
func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// writeOver writes into the blocks that a file has.
func writeOver(path string, data []byte, perm os.FileMode, sync bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || int64(len(data)) > st.Blocks*512 {
		f.Close()
		return errors.Join(err, unix.ENOSPC)
	}
	// Only what is behind the new content is given back.
	if err := f.Truncate(int64(len(data))); err != nil {
		f.Close()
		return err
	}
	return fill(f, data, perm, sync)
}

func replace(path string, data []byte, perm os.FileMode, sync bool) (err error) {
	var random [8]byte
	rand.Read(random[:])
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+tempMark+hex.EncodeToString(random[:]))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(temp)
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := fill(f, data, perm, sync); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	if sync {
		return SyncDir(filepath.Dir(path))
	}
	return nil
}

// fill writes and closes f.
func fill(f *os.File, data []byte, perm os.FileMode, sync bool) error {
	_, err := f.Write(data)
	if err == nil {
		// The umask may have taken bits away.
		err = f.Chmod(perm)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// SyncDir waits until the names in a directory, or the content of a file, are on
// the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// Read reads a whole file of at most limit bytes; a bigger one is an error.
func Read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, limit)
	}
	return data, nil
}
