package cgroups

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// reader reads the figures of one cgroup's controller. A file that is missing
// gives zero: kernels differ in what they have.
type reader struct {
	ctx context.Context
	dir string
	err error
	// kept are files that are open already; may be nil.
	kept *keptGroup
	// buf is used for one file after the other.
	buf []byte
}

// file reads a file; nil when it is missing, or after an error. What it gives
// holds until the next file is read.
func (r *reader) file(name string) []byte {
	if r.err == nil {
		r.err = r.ctx.Err()
	}
	if r.err != nil {
		return nil
	}
	if r.buf == nil {
		r.buf = make([]byte, 0, 4096)
	}
	data, err := r.read(name)
	if data != nil {
		r.buf = data
	}
	if err != nil && !gone(err) && !errors.Is(err, unix.EOPNOTSUPP) {
		r.err = err
	}
	return data
}

func (r *reader) read(name string) ([]byte, error) {
	if r.kept != nil {
		return r.kept.read(r.buf, keptFile{r.dir, name})
	}
	return readFileInto(r.buf, r.dir+"/"+name)
}

// enter turns to another folder, if it is there.
func (r *reader) enter(dir string) bool {
	r.dir = dir
	return r.kept != nil && r.kept.within(dir) || isDir(dir)
}

func (r *reader) number(name string) uint64 {
	data := r.file(name)
	if data == nil {
		return 0
	}
	n, err := parseNumber(data)
	if err != nil {
		r.err = fmt.Errorf("read %s/%s: %w", r.dir, name, err)
	}
	return n
}

// limit reads a limit; none is zero.
func (r *reader) limit(name string) uint64 {
	if n := r.number(name); n < unlimited {
		return n
	}
	return 0
}

// statsPart reads one controller's figures into Stats.
type statsPart struct {
	controller string
	v1, v2     func(*Manager, *reader, *Stats)
}

var statsParts = []statsPart{
	{"cpuacct", cpuacctV1, nil},
	{"cpu", cpuStatV1, cpuStatV2},
	{"memory", memoryStatV1, memoryStatV2},
	{"pids", pidsStat, pidsStat},
	{"blkio", blkioStat, nil},
	{"io", nil, ioStat},
	{"hugetlb", hugetlbStatV1, hugetlbStatV2},
}

// Stats reads a cgroup once, with all below it. A file that vanishes while
// being read, as when the cgroup is removed, counts as zero.
func (m *Manager) Stats(ctx context.Context, path string) (*Stats, error) {
	p, err := m.clean(path)
	if err != nil {
		return nil, err
	}
	if !m.exists(p) {
		return nil, fmt.Errorf("read cgroup %s: %w", path, errdefs.ErrNotFound)
	}
	s := &Stats{At: time.Now()}
	if err := m.read(&reader{ctx: ctx}, p, s, statsParts); err != nil {
		return nil, fmt.Errorf("read cgroup %s: %w", path, err)
	}
	return s, nil
}

// pressure reads PSI, which v2 alone has, with or without controllers.
func (m *Manager) pressure(r *reader, p string, s *Stats) error {
	for _, h := range m.hierarchies {
		if !h.v2 || !r.enter(h.dir(p)) {
			continue
		}
		for _, resource := range []string{"cpu", "memory", "io"} {
			data := r.file(resource + ".pressure")
			if r.err != nil {
				return r.err
			}
			if data == nil {
				continue
			}
			psi, err := parsePSI(data)
			if err != nil {
				return fmt.Errorf("read %s/%s.pressure: %w", r.dir, resource, err)
			}
			if s.PSI == nil {
				s.PSI = make(map[string]PSIStats, 3)
			}
			s.PSI[resource] = psi
		}
	}
	return nil
}

// OOMKills counts the processes of a cgroup and all below it that the OOM
// killer killed. On v1 the counts of cgroups since removed are lost.
func (m *Manager) OOMKills(path string) (uint64, error) {
	p, err := m.clean(path)
	if err != nil {
		return 0, err
	}
	h := m.byController["memory"]
	if h == nil {
		return 0, nil
	}
	if !isDir(h.dir(p)) {
		return 0, fmt.Errorf("read OOM kills of cgroup %s: %w", path, errdefs.ErrNotFound)
	}
	n, err := oomKills(h.v2, h.dir(p))
	if err != nil {
		return 0, fmt.Errorf("read OOM kills of cgroup %s: %w", path, err)
	}
	return n, nil
}

func oomKills(v2 bool, dir string) (uint64, error) {
	if v2 {
		data, err := readFile(dir + "/memory.events")
		if gone(err) {
			return 0, nil
		}
		return parseFlat(data)["oom_kill"], err
	}
	// v1 counts for each cgroup alone.
	var sum uint64
	err := walk(dir, func(dir string) error {
		data, err := readFile(dir + "/memory.oom_control")
		if gone(err) {
			return nil
		}
		sum += parseFlat(data)["oom_kill"]
		return err
	})
	return sum, err
}

func (s *Stats) cpu() *CPUStats {
	if s.CPU == nil {
		s.CPU = &CPUStats{}
	}
	return s.CPU
}

// userHz is the unit of cpuacct.stat, 1/100 s on every Linux (USER_HZ).
const userHz = 100

func cpuacctV1(_ *Manager, r *reader, s *Stats) {
	c := s.cpu()
	c.UsageNanos = r.number("cpuacct.usage")
	c.PerCPUNanos = parseNumbers(r.file("cpuacct.usage_percpu"))
	ticks := parseFlat(r.file("cpuacct.stat"))
	c.UserNanos = ticks["user"] * uint64(time.Second) / userHz
	c.SystemNanos = ticks["system"] * uint64(time.Second) / userHz
}

func cpuStatV1(_ *Manager, r *reader, s *Stats) {
	stat := parseFlat(r.file("cpu.stat"))
	c := s.cpu()
	c.Periods, c.ThrottledPeriods, c.ThrottledNanos = stat["nr_periods"], stat["nr_throttled"], stat["throttled_time"]
}

func cpuStatV2(_ *Manager, r *reader, s *Stats) {
	stat := parseFlat(r.file("cpu.stat"))
	const micro = uint64(time.Microsecond)
	s.CPU = &CPUStats{
		UsageNanos: stat["usage_usec"] * micro, UserNanos: stat["user_usec"] * micro, SystemNanos: stat["system_usec"] * micro,
		Periods: stat["nr_periods"], ThrottledPeriods: stat["nr_throttled"], ThrottledNanos: stat["throttled_usec"] * micro,
	}
}

func memoryStatV1(_ *Manager, r *reader, s *Stats) {
	stat := parseFlat(r.file("memory.stat"))
	mem := &MemoryStats{
		Usage: r.number("memory.usage_in_bytes"), MaxUsage: r.number("memory.max_usage_in_bytes"),
		Limit: r.limit("memory.limit_in_bytes"), FailCount: r.number("memory.failcnt"),
		RSS: stat["total_rss"], Cache: stat["total_cache"], MappedFile: stat["total_mapped_file"],
		InactiveFile: stat["total_inactive_file"], ActiveFile: stat["total_active_file"],
		TotalActiveAnon: stat["total_active_anon"], InactiveAnon: stat["total_inactive_anon"],
		PageFaults: stat["total_pgfault"], MajorPageFaults: stat["total_pgmajfault"],
		SwapUsage:   stat["total_swap"],
		KernelUsage: r.number("memory.kmem.usage_in_bytes"), Socket: r.number("memory.kmem.tcp.usage_in_bytes"),
	}
	if both := r.limit(memswLimitV1); both > mem.Limit && mem.Limit > 0 {
		mem.SwapLimit = both - mem.Limit
	}
	finishMemory(r, s, mem, false)
}

func memoryStatV2(_ *Manager, r *reader, s *Stats) {
	stat := parseFlat(r.file("memory.stat"))
	kernel, ok := stat["kernel"]
	if !ok { // before kernel 5.18
		kernel = stat["kernel_stack"] + stat["slab"] + stat["pagetables"] + stat["percpu"]
	}
	finishMemory(r, s, &MemoryStats{
		Usage: r.number("memory.current"), MaxUsage: r.number("memory.peak"),
		Limit: r.limit("memory.max"), FailCount: parseFlat(r.file("memory.events"))["max"],
		RSS: stat["anon"], Cache: stat["file"], MappedFile: stat["file_mapped"],
		InactiveFile: stat["inactive_file"], ActiveFile: stat["active_file"],
		TotalActiveAnon: stat["active_anon"], InactiveAnon: stat["inactive_anon"],
		PageFaults: stat["pgfault"], MajorPageFaults: stat["pgmajfault"],
		SwapUsage: r.number("memory.swap.current"), SwapLimit: r.limit("memory.swap.max"),
		KernelUsage: kernel, Socket: stat["sock"], Slab: stat["slab"],
	}, true)
}

// finishMemory adds what is derived, and the OOM kills.
func finishMemory(r *reader, s *Stats, mem *MemoryStats, v2 bool) {
	mem.withWorkingSet()
	if r.err == nil {
		mem.OOMKills, r.err = oomKills(v2, r.dir)
	}
	s.Memory = mem
}

func pidsStat(_ *Manager, r *reader, s *Stats) {
	s.Pids = &PidsStats{Current: r.number("pids.current"), Limit: r.limit("pids.max"), Refused: parseFlat(r.file("pids.events"))["max"]}
}

func blkioStat(_ *Manager, r *reader, s *Stats) {
	var t ioTable
	parseBlkio(r.file("blkio.throttle.io_service_bytes_recursive"), &t, false)
	parseBlkio(r.file("blkio.throttle.io_serviced_recursive"), &t, true)
	s.IO = t.list()
}

func ioStat(_ *Manager, r *reader, s *Stats) {
	var t ioTable
	parseIOStat(r.file("io.stat"), &t)
	s.IO = t.list()
}

func hugetlbStatV1(m *Manager, r *reader, s *Stats) {
	s.Hugetlb = make(map[string]HugetlbStats, len(m.hugepages))
	for _, size := range m.hugepages {
		s.Hugetlb[size] = HugetlbStats{
			Usage:    r.number("hugetlb." + size + ".usage_in_bytes"),
			MaxUsage: r.number("hugetlb." + size + ".max_usage_in_bytes"),
			Failcnt:  r.number("hugetlb." + size + ".failcnt"),
		}
	}
}

func hugetlbStatV2(m *Manager, r *reader, s *Stats) {
	s.Hugetlb = make(map[string]HugetlbStats, len(m.hugepages))
	for _, size := range m.hugepages {
		s.Hugetlb[size] = HugetlbStats{
			Usage:   r.number("hugetlb." + size + ".current"),
			Failcnt: parseFlat(r.file("hugetlb." + size + ".events"))["max"],
		}
	}
}
