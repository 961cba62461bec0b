package cgroups

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// containerParts and podParts read what changes all the time and little else:
// of what runs in a container its use of swap, of a pod the number of its tasks.
var (
	containerParts = []statsPart{
		{"cpuacct", cpuUsageV1, nil},
		{"cpu", nil, cpuStatV2},
		{"memory", swapUsageV1, swapUsageV2},
	}
	podParts = []statsPart{
		{"cpuacct", cpuUsageV1, nil},
		{"cpu", nil, cpuStatV2},
		{"memory", memoryUsageV1, memoryUsageV2},
		{"pids", pidsUsage, pidsUsage},
	}
)

// ContainerUsage reads a cgroup once, with all below it: of Stats the use of
// CPU, memory and swap, and the pressure. It reads a third of the files, and
// keeps them open for the next reading.
func (m *Manager) ContainerUsage(ctx context.Context, path string) (*Stats, error) {
	return m.readUsage(ctx, path, containerParts)
}

// PodUsage is as ContainerUsage, with the number of tasks and without swap.
func (m *Manager) PodUsage(ctx context.Context, path string) (*Stats, error) {
	return m.readUsage(ctx, path, podParts)
}

func (m *Manager) readUsage(ctx context.Context, path string, parts []statsPart) (*Stats, error) {
	p, err := m.clean(path)
	if err != nil {
		return nil, err
	}
	s, stale, err := m.usage(ctx, p, parts)
	if stale {
		// Another may have been made in its place.
		s, _, err = m.usage(ctx, p, parts)
	}
	if err != nil {
		return nil, fmt.Errorf("read cgroup %s: %w", path, err)
	}
	return s, nil
}

// buffers are the readers' own.
var buffers = sync.Pool{New: func() any { return new([4096]byte) }}

// usage reads a cgroup, with the files kept of it if there are any. stale says
// that these were of a cgroup that is gone.
func (m *Manager) usage(ctx context.Context, p string, parts []statsPart) (s *Stats, stale bool, err error) {
	kept := m.keep.take(p)
	defer m.keep.give(p, kept)
	if (kept == nil || len(kept.files) == 0) && !m.exists(p) {
		return nil, false, errdefs.ErrNotFound
	}
	s = &Stats{At: time.Now()}
	buffer := buffers.Get().(*[4096]byte)
	defer buffers.Put(buffer)
	err = m.read(&reader{ctx: ctx, kept: kept, buf: buffer[:0]}, p, s, parts)
	return s, kept != nil && kept.stale, err
}

// read reads those parts whose controllers the host has, and the pressure.
func (m *Manager) read(r *reader, p string, s *Stats, parts []statsPart) error {
	for _, part := range parts {
		h := m.byController[part.controller]
		if h == nil {
			continue
		}
		read := part.v1
		if h.v2 {
			read = part.v2
		}
		if read == nil || !r.enter(h.dir(p)) {
			continue
		}
		read(m, r, s)
		if r.err != nil {
			return r.err
		}
	}
	return m.pressure(r, p, s)
}

func cpuUsageV1(_ *Manager, r *reader, s *Stats) {
	s.cpu().UsageNanos = r.number("cpuacct.usage")
}

func memoryUsageV1(_ *Manager, r *reader, s *Stats) {
	mem := &MemoryStats{}
	parseFields(r.file("memory.stat"), []field{
		{"total_rss", &mem.RSS}, {"total_inactive_file", &mem.InactiveFile}, {"total_pgfault", &mem.PageFaults},
		{"total_pgmajfault", &mem.MajorPageFaults}, {"total_swap", &mem.SwapUsage},
	})
	mem.Usage, mem.Limit = r.number("memory.usage_in_bytes"), r.limit("memory.limit_in_bytes")
	s.Memory = mem.withWorkingSet()
}

func swapUsageV1(m *Manager, r *reader, s *Stats) {
	memoryUsageV1(m, r, s)
	if both := r.limit(memswLimitV1); both > s.Memory.Limit && s.Memory.Limit > 0 {
		s.Memory.SwapLimit = both - s.Memory.Limit
	}
}

func memoryUsageV2(_ *Manager, r *reader, s *Stats) {
	mem := &MemoryStats{}
	parseFields(r.file("memory.stat"), []field{
		{"anon", &mem.RSS}, {"inactive_file", &mem.InactiveFile},
		{"pgfault", &mem.PageFaults}, {"pgmajfault", &mem.MajorPageFaults},
	})
	mem.Usage, mem.Limit = r.number("memory.current"), r.limit("memory.max")
	s.Memory = mem.withWorkingSet()
}

func swapUsageV2(m *Manager, r *reader, s *Stats) {
	memoryUsageV2(m, r, s)
	s.Memory.SwapUsage, s.Memory.SwapLimit = r.number("memory.swap.current"), r.limit("memory.swap.max")
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
