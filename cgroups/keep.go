package cgroups

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// keepTime is how long after the last reading files stay open: kubelet
	// asks every ten seconds.
	keepTime = 30 * time.Second
	// keepMost bounds the files kept open, and keepPart is the part of the
	// process's own limit that they may take.
	keepMost, keepPart = 8192, 4
)

// keeper keeps the files that Usage reads open from one reading to the next:
// opening a cgroup's file takes several times as long as reading it. What
// there is no room for is opened each time.
type keeper struct {
	most int

	mu     sync.Mutex // guards the fields below
	groups map[string]*keptGroup
	open   int
	timer  *time.Timer
	closed bool
}

// keptGroup is the open files of one cgroup.
type keptGroup struct {
	// busy is held by the one reading that uses the files, and by who closes
	// them.
	busy sync.Mutex
	// files are descriptors, and dirs the folders they are in.
	files map[keptFile]int
	dirs  map[string]bool
	// stale says that a file's cgroup is gone; one of the same name may
	// have been made since.
	stale bool
	// used is when the last reading began; keeper.mu guards it.
	used time.Time
}

type keptFile struct{ dir, name string }

func newKeeper() *keeper {
	k := &keeper{most: keepMost, groups: map[string]*keptGroup{}}
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err == nil {
		k.most = int(min(uint64(keepMost), own.Cur/keepPart))
	}
	return k
}

// take gives the files of a cgroup to a reading, which gives them back; nil
// means that it has to do without.
func (k *keeper) take(path string) *keptGroup {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.groups[path]
	if g == nil {
		if k.closed || k.open >= k.most {
			return nil
		}
		g = &keptGroup{files: map[keptFile]int{}, dirs: map[string]bool{}}
		k.groups[path] = g
	}
	// One that is in use may hang, and must not hold others up.
	if !g.busy.TryLock() {
		return nil
	}
	g.used = time.Now()
	k.open -= len(g.files)
	return g
}

// give takes files back, and closes stale ones.
func (k *keeper) give(path string, g *keptGroup) {
	if g == nil {
		return
	}
	defer g.busy.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || g.stale || len(g.files) == 0 {
		g.close()
		delete(k.groups, path)
		return
	}
	k.open += len(g.files)
	if k.timer == nil {
		k.timer = time.AfterFunc(keepTime, k.expire)
	}
}

// expire closes what was not read for a while.
func (k *keeper) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.timer = nil
	for path, g := range k.groups {
		if time.Since(g.used) < keepTime || !g.busy.TryLock() {
			continue
		}
		k.open -= len(g.files)
		g.close()
		delete(k.groups, path)
		g.busy.Unlock()
	}
	if len(k.groups) > 0 && !k.closed {
		k.timer = time.AfterFunc(keepTime, k.expire)
	}
}

// close closes all files, those of a reading under way when it ends.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.timer != nil {
		k.timer.Stop()
	}
	for path, g := range k.groups {
		if g.busy.TryLock() {
			g.close()
			delete(k.groups, path)
			g.busy.Unlock()
		}
	}
}

func (g *keptGroup) close() {
	for _, fd := range g.files {
		unix.Close(fd)
	}
	clear(g.files)
	clear(g.dirs)
}

// within tells whether a file of a folder is open, so that it must be there.
func (g *keptGroup) within(dir string) bool { return g.dirs[dir] }

// read reads a file from its beginning into the room of buf, or more.
func (g *keptGroup) read(buf []byte, f keptFile) ([]byte, error) {
	fd, ok := g.files[f]
	if !ok {
		var err error
		if fd, err = open(f.dir+"/"+f.name, unix.O_RDONLY); err != nil {
			return nil, err
		}
		g.files[f] = fd
		g.dirs[f.dir] = true
	}
	data, err := readStat(buf[:0], fd)
	if err != nil {
		g.stale = g.stale || errors.Is(err, unix.ENODEV)
		return nil, &os.PathError{Op: "read", Path: f.dir + "/" + f.name, Err: err}
	}
	return data, nil
}

// readStat reads a file that the kernel writes in one piece: a read that
// leaves room has got all of it.
func readStat(buf []byte, fd int) ([]byte, error) {
	for {
		n, err := unix.Pread(fd, buf[len(buf):cap(buf)], int64(len(buf)))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) < cap(buf):
			return buf, nil
		case len(buf) >= maxFile:
			return nil, unix.EFBIG
		}
		buf = append(buf, 0)[:len(buf)]
	}
}
