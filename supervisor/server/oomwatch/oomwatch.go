// Package oomwatch tells when the kernel's OOM killer kills in a cgroup. A
// watch costs one descriptor and one goroutine that Go's poller parks; no
// thread waits.
//
// On v2 memory.events itself wakes who polls it (kernel,
// Documentation/admin-guide/cgroup-v2.rst, memory.events). On v1 the kernel
// signals an eventfd that was registered for memory.oom_control, before it
// kills (Documentation/admin-guide/cgroup-v1/memory.rst, section 10), so the
// counter is looked at until it has grown. It tells nothing there of what it
// kills for want of the whole machine's memory, nor of kills in cgroups below.
package oomwatch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// interval is the least time between two calls of tell, so that a burst
	// of kills is not a burst of news. It doubles up to longest while they go
	// on: what is kept of events is not all to be about this container.
	interval = 100 * time.Millisecond
	longest  = 2 * time.Second
	// patience is how long the kernel is given to kill after it said that
	// memory is out, and look how often that is looked at.
	patience = time.Second
	look     = 5 * time.Millisecond
)

// Watcher watches one cgroup. Make it with Open, call Run once, and end that
// with Close.
type Watcher struct {
	// counters is the path of the file with the line "oom_kill N".
	counters string
	// event is what the kernel wakes: the eventfd on v1, counters on v2.
	event *os.File
	next  func(known uint64, wait time.Duration) (uint64, error)
	// closed is closed by Close.
	closed chan struct{}
	close  sync.Once
}

// Open begins to watch the cgroup of a container. paths are its cgroups by
// controller, "" for v2. ErrNotFound means that it has no cgroup for memory.
func Open(paths map[string]string) (*Watcher, error) {
	w := &Watcher{closed: make(chan struct{})}
	dir, unified, err := memoryDir(paths)
	if err != nil {
		return nil, err
	}
	var fd int
	if unified {
		w.counters, w.next = filepath.Join(dir, "memory.events"), w.nextUnified
		fd, err = unix.Open(w.counters, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	} else {
		w.counters, w.next = filepath.Join(dir, "memory.oom_control"), w.nextLegacy
		fd, err = register(dir, w.counters)
	}
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", w.counters, err)
	}
	w.event = os.NewFile(uintptr(fd), w.counters)
	return w, nil
}

// Close ends Run and lets go of the cgroup. It may be called more than once.
func (w *Watcher) Close() {
	w.close.Do(func() {
		close(w.closed)
		w.event.Close()
	})
}

// Run calls tell, with how many, each time the kernel has killed since known,
// the number of kills that the caller knows of: the first time at once, then not more often
// than each tenth of a second, and less often the longer that goes on. It
// returns what is known then, with nil after Close and when the cgroup is gone.
func (w *Watcher) Run(known uint64, tell func(kills uint64)) (uint64, error) {
	var told time.Time
	hold := interval
	// What was killed before the watch began is not waited for.
	for wait := time.Duration(0); ; wait = patience {
		n, err := w.next(known, wait)
		select {
		case <-w.closed:
			return known, nil
		default:
		}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
			return known, nil
		}
		if err != nil {
			return known, err
		}
		if hold = min(2*hold, longest); time.Since(told) > 2*hold {
			hold = interval
		}
		tell(n - known)
		known, told = n, time.Now()
		timer := time.NewTimer(hold)
		select {
		case <-timer.C:
		case <-w.closed:
			timer.Stop()
			return known, nil
		}
	}
}

// nextUnified returns once there are more kills than are known. The poller
// forgets what came before it is asked, so the counter is read after that.
func (w *Watcher) nextUnified(known uint64, _ time.Duration) (uint64, error) {
	raw, err := w.event.SyscallConn()
	if err != nil {
		return known, err
	}
	var n uint64
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		n, rerr = read(int(fd))
		return rerr != nil || n > known
	})
	return n, errors.Join(err, rerr)
}

// nextLegacy returns once there are more kills than are known. After the last
// kill, and after each signal, the counter is given some time to grow: two
// kills may have had one signal.
func (w *Watcher) nextLegacy(known uint64, wait time.Duration) (uint64, error) {
	for ; ; wait = patience {
		if n, err := w.grown(known, wait); err != nil || n > known {
			return n, err
		}
		var signals [8]byte
		if _, err := w.event.Read(signals[:]); err != nil {
			return known, err
		}
	}
}

// grown looks whether there are more kills than are known, for a while.
func (w *Watcher) grown(known uint64, wait time.Duration) (uint64, error) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for began := time.Now(); ; {
		n, err := readFile(w.counters)
		if err != nil || n > known || time.Since(began) >= wait {
			return n, err
		}
		select {
		case <-tick.C:
		case <-w.closed:
			return known, os.ErrClosed
		}
	}
}

// Kills is how often the kernel killed a process of a container for want of
// memory; zero when it does not tell.
func Kills(paths map[string]string) uint64 {
	dir, unified, err := memoryDir(paths)
	if err != nil {
		return 0
	}
	name := "memory.oom_control"
	if unified {
		name = "memory.events"
	}
	n, _ := readFile(filepath.Join(dir, name))
	return n
}

// memoryDir is a container's cgroup for memory, and whether it is of v2.
func memoryDir(paths map[string]string) (dir string, unified bool, err error) {
	if dir = paths["memory"]; dir == "" {
		dir = paths[""]
	}
	if dir == "" {
		return "", false, fmt.Errorf("cgroup for memory: %w", errdefs.ErrNotFound)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", false, fmt.Errorf("look at %s: %w", dir, err)
	}
	return dir, st.Type == unix.CGROUP2_SUPER_MAGIC, nil
}

// register returns an eventfd that is signalled when memory is out in dir. The
// kernel lets go of it with the cgroup or with the descriptor, whatever ends
// first.
func register(dir, control string) (int, error) {
	of, err := unix.Open(control, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(of)
	registry, err := unix.Open(filepath.Join(dir, "cgroup.event_control"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(registry)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, err
	}
	if _, err := unix.Write(registry, fmt.Appendf(nil, "%d %d", fd, of)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func readFile(path string) (uint64, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return read(fd)
}

// read is the counter of kills in an open file; zero when it has none.
func read(fd int) (uint64, error) {
	var data [512]byte
	n, err := unix.Pread(fd, data[:], 0)
	if err != nil {
		return 0, err
	}
	return parse(data[:n]), nil
}

// parse finds the line "oom_kill N".
func parse(data []byte) uint64 {
	for line := range bytes.Lines(data) {
		if value, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
			return n
		}
	}
	return 0
}
