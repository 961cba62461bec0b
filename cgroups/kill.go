package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// pidBatch is how many descriptors of processes are held at a time.
const pidBatch = 256

// Kill kills every process of a cgroup and of all below it, frozen ones too,
// and returns once there is none. A cgroup that does not exist has none. When
// ctx, or 30 seconds, have passed and processes are left, as in an
// uninterruptible wait, it fails with ctx's error; they are killed as soon as
// they can be. The cgroup is never left frozen.
//
// It refuses a cgroup in which the caller itself is.
func (m *Manager) Kill(ctx context.Context, path string) error {
	p, err := m.clean(path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for round := 0; ; round++ {
		pids, err := m.allProcs(p)
		if err != nil {
			return fmt.Errorf("kill cgroup %s: %w", path, err)
		}
		if len(pids) == 0 {
			return nil
		}
		if slices.Contains(pids, os.Getpid()) {
			return fmt.Errorf("kill cgroup %s: the agent itself is in it: %w", path, errdefs.ErrFailedPrecondition)
		}
		if err := m.killOnce(ctx, p, round); err != nil {
			return fmt.Errorf("kill cgroup %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill cgroup %s: %d processes are left: %w", path, len(pids), ctx.Err())
		case <-ticker.C:
		}
	}
}

// allProcs lists the processes of a cgroup in every hierarchy: one that was
// moved out of some is still in others.
func (m *Manager) allProcs(p string) ([]int, error) {
	var out []int
	for _, h := range m.hierarchies {
		pids, err := procsBelow(h.dir(p))
		if err != nil {
			return nil, err
		}
		out = append(out, pids...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// killOnce sends SIGKILL to everything in a cgroup once. Where the kernel has
// cgroup.kill that is tried first, alone: it kills all in one go, so that no
// fork escapes. What is left in the next round (v1, an old kernel, a process
// in some hierarchies only) is frozen, so that it forks no more and IDs stay,
// killed one by one, and thawed.
func (m *Manager) killOnce(ctx context.Context, p string, round int) error {
	killed, err := m.killAtOnce(p)
	if err != nil {
		return err
	}
	if killed && round == 0 {
		m.thaw(p)
		return nil
	}
	defer m.thaw(p)
	if h := m.byController["freezer"]; h != nil {
		freezeV1(ctx, h.dir(p))
	}
	for _, h := range m.hierarchies {
		if err := killProcs(h.dir(p)); err != nil {
			return err
		}
	}
	return nil
}

// killAtOnce uses cgroup.kill (kernel 5.14) and says whether there is one.
func (m *Manager) killAtOnce(p string) (killed bool, err error) {
	for _, h := range m.hierarchies {
		if !h.v2 {
			continue
		}
		err := writeFile(h.dir(p)+"/cgroup.kill", "1")
		switch {
		case err == nil:
			killed = true
		case !gone(err) && !errors.Is(err, unix.EOPNOTSUPP):
			return false, err
		}
	}
	return killed, nil
}

// thaw lets a cgroup and all below it run on, without which a process that
// v1 froze does not die.
func (m *Manager) thaw(p string) {
	for _, h := range m.hierarchies {
		file, value := "/freezer.state", "THAWED"
		switch {
		case h.v2:
			file, value = "/cgroup.freeze", "0"
		case !h.has("freezer"):
			continue
		}
		_ = walk(h.dir(p), func(dir string) error {
			_ = writeFile(dir+file, value)
			return nil
		})
	}
}

// freezeRounds bounds the wait for a v1 cgroup to freeze: a process in an
// uninterruptible wait holds it up for as long as it likes.
const freezeRounds = 25

// freezeV1 asks a v1 cgroup to freeze and waits a little for it; the state is
// written again while it is FREEZING, which takes in what was forked meanwhile.
func freezeV1(ctx context.Context, dir string) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for range freezeRounds {
		if writeFile(dir+"/freezer.state", "FROZEN") != nil {
			return
		}
		state, err := readFile(dir + "/freezer.state")
		if err != nil || string(state) == "FROZEN\n" {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// killProcs sends SIGKILL to the processes of a cgroup and all below it.
func killProcs(dir string) error {
	pids, err := procsBelow(dir)
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(pids, pidBatch) {
		if err := killBatch(dir, batch); err != nil {
			return err
		}
	}
	return nil
}

// killBatch kills processes of a cgroup by descriptor. The list is read again
// once all are open: whoever is on it then is the process that was opened,
// and not a stranger that got the ID of one that ended.
func killBatch(dir string, pids []int) error {
	fds := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		if pid <= 0 || pid == os.Getpid() {
			continue
		}
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			fds[pid] = fd
		} else if !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("open process %d: %w", pid, err)
		}
	}
	again, err := procsBelow(dir)
	if err != nil {
		return err
	}
	for _, pid := range again {
		fd, ok := fds[pid]
		if !ok {
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}
