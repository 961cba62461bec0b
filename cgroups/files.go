package cgroups

import (
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of one cgroup file. The longest, the list of
// processes of a group with a million of them, has 8 MB.
const maxFile = 16 << 20

// readFile reads a file of a cgroup. Such files give their size as 0 or 4096
// and are read in one go, past the runtime's poller.
func readFile(path string) ([]byte, error) {
	return readFileInto(make([]byte, 0, 4096), path)
}

// readFileInto reads a file into the room of buf, or more where that is not enough.
func readFileInto(buf []byte, path string) ([]byte, error) {
	buf = buf[:0]
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		buf = buf[:len(buf)+n]
		switch {
		case n == 0:
			return buf, nil
		case len(buf) >= maxFile:
			return nil, &os.PathError{Op: "read", Path: path, Err: unix.EFBIG}
		case len(buf) == cap(buf):
			buf = slices.Grow(buf, len(buf))
		}
	}
}

// writeFile writes a value into a file of a cgroup in one write.
func writeFile(path, value string) error {
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Write(fd, []byte(value))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "write " + strconv.Quote(value) + " to", Path: path, Err: err}
		}
		return nil
	}
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return fd, nil
	}
}

func isDir(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// children lists the cgroups directly below one; none when it is gone.
func children(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, dir+"/"+e.Name())
		}
	}
	return out, nil
}

// walk calls visit for a cgroup and all below it, parents first.
func walk(dir string, visit func(dir string) error) error {
	if err := visit(dir); err != nil {
		return err
	}
	below, err := children(dir)
	if err != nil {
		return err
	}
	for _, c := range below {
		if err := walk(c, visit); err != nil {
			return err
		}
	}
	return nil
}

// gone tells the errors of a cgroup that was removed: ENODEV comes of a file
// opened before.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// procsBelow lists the processes of a cgroup and all below it, each once,
// ascending. What vanishes meanwhile has none.
func procsBelow(dir string) ([]int, error) {
	var out []int
	err := walk(dir, func(dir string) error {
		data, err := readFile(dir + "/cgroup.procs")
		if errors.Is(err, unix.ENOTSUP) {
			// A threaded cgroup lists threads only (cgroup-v2.rst, Threads).
			data, err = readFile(dir + "/cgroup.threads")
		}
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		pids, err := parsePIDs(data)
		out = append(out, pids...)
		return err
	})
	slices.Sort(out)
	return slices.Compact(out), err
}
