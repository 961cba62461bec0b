// Package procfs counts what processes have open, and names disks, from
// /proc and /sys. What vanishes while it is read counts as nothing.
package procfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Open is what processes have open.
type Open struct {
	// Files are all descriptors, Sockets those of them that are sockets.
	Files, Sockets uint64
}

// batch is how many descriptors are listed at a time.
const batch = 1024

// Count counts the descriptors of processes. ctx is looked at now and then.
func Count(ctx context.Context, pids []int) (Open, error) {
	var sum Open
	for _, pid := range pids {
		if err := count(ctx, pid, &sum); err != nil {
			return Open{}, fmt.Errorf("count descriptors of process %d: %w", pid, err)
		}
	}
	return sum, nil
}

func count(ctx context.Context, pid int, sum *Open) error {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		names, err := dir.Readdirnames(batch)
		for _, name := range names {
			sum.Files++
			if isSocket(dir, name) {
				sum.Sockets++
			}
		}
		if errors.Is(err, io.EOF) || gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func isSocket(dir *os.File, name string) bool {
	const prefix = "socket:"
	var buf [len(prefix)]byte
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf[:])
	return err == nil && string(buf[:n]) == prefix
}

func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// maxLimits bounds /proc/PID/limits, which has under 2 KiB.
const maxLimits = 16 << 10

// MaxOpenFiles gives the soft limit of open files of a process; ok is false
// when the process is gone.
func MaxOpenFiles(pid int) (limit uint64, ok bool) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/limits")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxLimits))
	if err != nil {
		return 0, false
	}
	return parseMaxOpenFiles(data)
}

func parseMaxOpenFiles(data []byte) (limit uint64, ok bool) {
	for line := range bytes.Lines(data) {
		rest, found := bytes.CutPrefix(line, []byte("Max open files"))
		if fields := bytes.Fields(rest); found && len(fields) > 0 {
			n, err := strconv.ParseUint(string(fields[0]), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// Disk gives the device of a block device, such as "/dev/sda1"; its numbers
// ("8:1") when it is unknown.
func Disk(major, minor uint64) string {
	numbers := fmt.Sprintf("%d:%d", major, minor)
	target, err := os.Readlink("/sys/dev/block/" + numbers)
	if err != nil {
		return numbers
	}
	return "/dev/" + strings.ReplaceAll(filepath.Base(target), "!", "/")
}

// Filesystem is the filesystem that a path lies in.
type Filesystem struct {
	// Device is as Disk gives it, or the path for one without a disk.
	Device string
	// Bytes, Inodes and FreeInodes are as statfs(2) gives them; some
	// filesystems have no number of inodes.
	Bytes, Inodes, FreeInodes uint64
}

// StatFilesystem asks the filesystem that path lies in.
func StatFilesystem(path string) (Filesystem, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Filesystem{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Filesystem{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	device := path
	// Major 0 is of filesystems without a disk.
	if major := unix.Major(st.Dev); major != 0 {
		device = Disk(uint64(major), uint64(unix.Minor(st.Dev)))
	}
	return Filesystem{Device: device, Bytes: fs.Blocks * uint64(fs.Bsize), Inodes: fs.Files, FreeInodes: fs.Ffree}, nil
}
