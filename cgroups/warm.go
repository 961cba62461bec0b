package cgroups

import (
	"os"
	"strings"
	"sync"
)

// warmer has one Warm at a time under way.
type warmer struct {
	mu   sync.Mutex // guards busy
	busy bool
	wg   sync.WaitGroup
}

// Warm readies the kernel for processes to be moved between cgroups soon, and
// does not wait for that. The first to move one waits for a grace period of
// RCU, 5 ms and more, with the lock of all cgroups held; whoever comes within
// about another does not (cgroup_threadgroup_rwsem in kernel/cgroup/cgroup.c).
// It moves this process to where it is.
func (m *Manager) Warm() {
	w := &m.warm
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy || m.own == "" {
		return
	}
	w.busy = true
	w.wg.Go(func() {
		// Should it fail, the next to move a process waits.
		_ = writeFile(m.own, "0")
		w.mu.Lock()
		defer w.mu.Unlock()
		w.busy = false
	})
}

// ownProcs is the cgroup.procs of this process's cgroup in the first hierarchy;
// empty when it is not to be seen.
func ownProcs(hierarchies []*hierarchy) string {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || len(hierarchies) == 0 {
		return ""
	}
	h := hierarchies[0]
	for line := range lines(data) {
		fields := strings.SplitN(line, ":", 3)
		if len(fields) != 3 {
			continue
		}
		if h.v2 && fields[1] == "" || len(h.controllers) > 0 && fields[1] == strings.Join(h.controllers, ",") {
			if path := h.dir(fields[2]) + "/cgroup.procs"; isDir(h.dir(fields[2])) {
				return path
			}
		}
	}
	return ""
}
