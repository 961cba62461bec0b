package cgroups

import (
	"os"
	"path/filepath"
)

// coreFiles are those that no cgroup lacks that has the controller, on v1 and
// on v2.
var coreFiles = map[string][2]string{
	"memory": {"memory.limit_in_bytes", "memory.max"}, "cpu": {"cpu.shares", "cpu.weight"}, "cpuset": {"cpuset.cpus", "cpuset.cpus"},
	"pids": {"pids.max", "pids.max"}, "blkio": {"blkio.reset_stats", ""}, "io": {"", "io.max"},
}

// Has says whether cgroups have one of the files of a controller, by their
// names on v1 and on v2. No name means that there is none. The root lacks many
// of the files, and on v2 so do cgroups that the controller was not enabled
// for: where no cgroup tells, it is taken for there.
func (m *Manager) Has(controller string, v1, v2 []string) bool {
	h := m.byController[controller]
	if h == nil {
		return false
	}
	names, core := v1, coreFiles[controller][0]
	if h.v2 {
		names, core = v2, coreFiles[controller][1]
	}
	for _, name := range names {
		if _, err := os.Stat(h.dir("/" + name)); err == nil || h.below(name) {
			return true
		}
	}
	return len(names) > 0 && core != "" && !h.below(core)
}

// below says whether a cgroup near the root has a file.
func (h *hierarchy) below(name string) bool {
	for _, level := range []string{"/*/", "/*/*/"} {
		if matches, err := filepath.Glob(h.dir(level + name)); err == nil && len(matches) > 0 {
			return true
		}
	}
	return false
}
