package cgroups

import "context"

// usageParts read what changes all the time and little else.
var usageParts = []statsPart{
	{"cpuacct", cpuUsageV1, nil},
	{"cpu", nil, cpuStatV2},
	{"memory", memoryUsageV1, memoryUsageV2},
	{"pids", pidsUsage, pidsUsage},
}

// Usage reads a cgroup once, with all below it: of Stats the use of CPU,
// memory and tasks, and the pressure. It reads a third of the files.
func (m *Manager) Usage(ctx context.Context, path string) (*Stats, error) {
	return m.readParts(ctx, path, usageParts)
}

// read reads those parts whose controllers the host has, and the pressure.
func (m *Manager) read(ctx context.Context, p string, s *Stats, parts []statsPart) error {
	r := &reader{ctx: ctx}
	for _, part := range parts {
		h := m.byController[part.controller]
		if h == nil {
			continue
		}
		read := part.v1
		if h.v2 {
			read = part.v2
		}
		if read == nil || !isDir(h.dir(p)) {
			continue
		}
		r.dir = h.dir(p)
		read(m, r, s)
		if r.err != nil {
			return r.err
		}
	}
	return m.pressure(ctx, p, s)
}

func cpuUsageV1(_ *Manager, r *reader, s *Stats) {
	s.cpu().UsageNanos = r.number("cpuacct.usage")
}

func memoryUsageV1(_ *Manager, r *reader, s *Stats) {
	stat := parseFlat(r.file("memory.stat"))
	mem := &MemoryStats{
		Usage: r.number("memory.usage_in_bytes"), Limit: r.limit("memory.limit_in_bytes"),
		RSS: stat["total_rss"], InactiveFile: stat["total_inactive_file"],
		PageFaults: stat["total_pgfault"], MajorPageFaults: stat["total_pgmajfault"], SwapUsage: stat["total_swap"],
	}
	if both := r.limit(memswLimitV1); both > mem.Limit && mem.Limit > 0 {
		mem.SwapLimit = both - mem.Limit
	}
	s.Memory = mem.withWorkingSet()
}

func memoryUsageV2(_ *Manager, r *reader, s *Stats) {
	stat := parseFlat(r.file("memory.stat"))
	mem := &MemoryStats{
		Usage: r.number("memory.current"), Limit: r.limit("memory.max"),
		RSS: stat["anon"], InactiveFile: stat["inactive_file"],
		PageFaults: stat["pgfault"], MajorPageFaults: stat["pgmajfault"],
		SwapUsage: r.number("memory.swap.current"), SwapLimit: r.limit("memory.swap.max"),
	}
	s.Memory = mem.withWorkingSet()
}

// withWorkingSet adds what kubelet evicts by: use without the page cache that
// can be dropped at once.
func (mem *MemoryStats) withWorkingSet() *MemoryStats {
	if mem.Usage > mem.InactiveFile {
		mem.WorkingSet = mem.Usage - mem.InactiveFile
	}
	return mem
}

func pidsUsage(_ *Manager, r *reader, s *Stats) {
	s.Pids = &PidsStats{Current: r.number("pids.current")}
}
