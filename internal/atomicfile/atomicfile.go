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
	fd, err := open(path, unix.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || int64(len(data)) > st.Blocks*512 {
		unix.Close(fd)
		return errors.Join(err, unix.ENOSPC)
	}
	// Only what is behind the new content is given back.
	if err := unix.Ftruncate(fd, int64(len(data))); err != nil {
		unix.Close(fd)
		return err
	}
	return fill(fd, data, perm, sync)
}

func replace(path string, data []byte, perm os.FileMode, sync bool) (err error) {
	var random [8]byte
	rand.Read(random[:])
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+tempMark+hex.EncodeToString(random[:]))
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	fd, err := open(temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, perm)
	if err != nil {
		return err
	}
	if err = fill(fd, data, perm, sync); err == nil {
		err = again(func() error { return unix.Rename(temp, path) })
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	if sync {
		return SyncDir(filepath.Dir(path))
	}
	return nil
}

// Create writes a file that nobody looks for before something else tells of it:
// not as a whole, and in place of what is there.
func Create(path string, data []byte, perm os.FileMode) error {
	fd, err := open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, perm)
	if err == nil {
		err = fill(fd, data, perm, false)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// open is open(2). An os.File costs five system calls more, since it might be
// something that can be polled.
func open(path string, flags int, perm os.FileMode) (fd int, err error) {
	err = again(func() error {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, uint32(perm.Perm()))
		return err
	})
	return fd, err
}

// again calls f until no signal interrupts it.
func again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// fill writes and closes a file.
func fill(fd int, data []byte, perm os.FileMode, sync bool) error {
	err := writeAll(fd, data)
	if err == nil {
		err = setPerm(fd, perm)
	}
	if err == nil && sync {
		err = again(func() error { return unix.Fsync(fd) })
	}
	if cerr := unix.Close(fd); err == nil && cerr != unix.EINTR {
		err = cerr
	}
	return err
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil && err != unix.EINTR {
			return err
		}
		data = data[max(n, 0):]
	}
	return nil
}

// setPerm makes up for bits that the umask took away, or that a file had that
// was there. Looking costs less than changing.
func setPerm(fd int, perm os.FileMode) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&0o7777 == uint32(perm.Perm()) {
		return nil
	}
	return unix.Fchmod(fd, uint32(perm.Perm()))
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
