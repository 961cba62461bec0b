package cri

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerSubject is what a container's metrics are read from.
type containerSubject struct {
	*sandbox.ContainerDetail
	ctr *sandbox.Container
}

func (s *containerSubject) limits() *runtime.LinuxContainerResources {
	return s.ctr.Config.GetLinux().GetResources()
}

// containerMetrics are the metrics of a container.
var containerMetrics = slices.Concat(
	generalMetrics, cpuMetrics, memoryMetrics, hugetlbMetrics, diskMetrics, processMetrics, specMetrics,
	pressureMetrics("cpu", "CPU"), pressureMetrics("memory", "memory"), pressureMetrics("io", "a disk"),
)

type containerMetric = metric[containerSubject]

var generalMetrics = []containerMetric{
	{"container_last_seen", "Time the container was last read, in seconds since 1970.", gauge, nil,
		func(s *containerSubject) []sample { return one(uint64(s.Cgroup.At.Unix())) }},
	{"container_start_time_seconds", "Time the container was started, in seconds since 1970.", gauge, nil,
		func(s *containerSubject) []sample {
			if s.ctr.StartedAt.IsZero() {
				return nil
			}
			return one(uint64(s.ctr.StartedAt.Unix()))
		}},
}

// ofCPU reads a figure of the CPU, where there are any.
func ofCPU(read func(*cgroups.CPUStats) []sample) func(*containerSubject) []sample {
	return func(s *containerSubject) []sample {
		if s.Cgroup.CPU == nil {
			return nil
		}
		return read(s.Cgroup.CPU)
	}
}

var cpuMetrics = []containerMetric{
	{"container_cpu_usage_seconds_total", "CPU time used, in seconds.", counter, []string{"cpu"},
		ofCPU(func(c *cgroups.CPUStats) []sample { return wholeSeconds(c.UsageNanos, time.Nanosecond, "total") })},
	{"container_cpu_user_seconds_total", "CPU time used in user mode, in seconds.", counter, nil,
		ofCPU(func(c *cgroups.CPUStats) []sample { return wholeSeconds(c.UserNanos, time.Nanosecond) })},
	{"container_cpu_system_seconds_total", "CPU time used in the kernel, in seconds.", counter, nil,
		ofCPU(func(c *cgroups.CPUStats) []sample { return wholeSeconds(c.SystemNanos, time.Nanosecond) })},
	{"container_cpu_cfs_periods_total", "Periods of the CPU quota that have passed.", counter, nil,
		ofCPU(func(c *cgroups.CPUStats) []sample { return one(c.Periods) })},
	{"container_cpu_cfs_throttled_periods_total", "Periods in which the CPU quota was used up.", counter, nil,
		ofCPU(func(c *cgroups.CPUStats) []sample { return one(c.ThrottledPeriods) })},
	{"container_cpu_cfs_throttled_seconds_total", "Time spent waiting for the next period, in seconds.", counter, nil,
		ofCPU(func(c *cgroups.CPUStats) []sample { return wholeSeconds(c.ThrottledNanos, time.Nanosecond) })},
}

// ofMemory reads a figure of memory, where there are any.
func ofMemory(figure func(*cgroups.MemoryStats) uint64) func(*containerSubject) []sample {
	return func(s *containerSubject) []sample {
		if s.Cgroup.Memory == nil {
			return nil
		}
		return one(figure(s.Cgroup.Memory))
	}
}

var memoryMetrics = []containerMetric{
	{"container_memory_usage_bytes", "Memory in use, with all caches, in bytes.", gauge, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.Usage })},
	{"container_memory_max_usage_bytes", "The most memory that was in use, in bytes.", gauge, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.MaxUsage })},
	{"container_memory_working_set_bytes", "Memory in use without inactive caches, in bytes.", gauge, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.WorkingSet })},
	{"container_memory_rss", "Anonymous memory, in bytes.", gauge, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.RSS })},
	{"container_memory_cache", "Page cache, in bytes.", gauge, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.Cache })},
	{"container_memory_mapped_file", "Files mapped into memory, in bytes.", gauge, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.MappedFile })},
	{"container_memory_total_active_file_bytes", "Page cache in active use, in bytes.", gauge, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.ActiveFile })},
	{"container_memory_total_inactive_file_bytes", "Page cache that can be dropped at once, in bytes.", gauge, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.InactiveFile })},
	{"container_memory_kernel_usage", "Memory of the kernel, in bytes.", gauge, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.KernelUsage })},
	{"container_memory_swap", "Swap in use, in bytes.", gauge, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.SwapUsage })},
	{"container_memory_failcnt", "How often the limit of memory was met.", counter, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.FailCount })},
	{"container_memory_failures_total", "Page faults; pgmajfault had to read from a disk.", counter, []string{"failure_type", "scope"},
		func(s *containerSubject) []sample {
			if s.Cgroup.Memory == nil {
				return nil
			}
			return append(one(s.Cgroup.Memory.PageFaults, "pgfault", "container"),
				one(s.Cgroup.Memory.MajorPageFaults, "pgmajfault", "container")...)
		}},
	{"container_oom_events_total", "Processes that were killed because memory ran out.", counter, nil,
		ofMemory(func(m *cgroups.MemoryStats) uint64 { return m.OOMKills })},
}

var hugetlbMetrics = []containerMetric{
	{"container_hugetlb_usage_bytes", "Huge pages in use, in bytes.", gauge, []string{"pagesize"},
		eachPageSize(func(h cgroups.HugetlbStats) uint64 { return h.Usage })},
	{"container_hugetlb_max_usage_bytes", "The most huge pages that were in use, in bytes.", gauge, []string{"pagesize"},
		eachPageSize(func(h cgroups.HugetlbStats) uint64 { return h.MaxUsage })},
}

// eachPageSize reads a figure of each size of huge pages.
func eachPageSize(figure func(cgroups.HugetlbStats) uint64) func(*containerSubject) []sample {
	return func(s *containerSubject) []sample {
		var samples []sample
		for _, size := range slices.Sorted(maps.Keys(s.Cgroup.Hugetlb)) {
			samples = append(samples, one(figure(s.Cgroup.Hugetlb[size]), size)...)
		}
		return samples
	}
}

var diskMetrics = []containerMetric{
	{"container_fs_usage_bytes", "Size of the writable layer, in bytes.", gauge, []string{"device"},
		func(s *containerSubject) []sample { return one(s.LayerBytes, s.Filesystem.Device) }},
	{"container_fs_limit_bytes", "Size of the filesystem of the writable layer, in bytes.", gauge, []string{"device"},
		func(s *containerSubject) []sample { return one(s.Filesystem.Bytes, s.Filesystem.Device) }},
	{"container_fs_inodes_total", "Inodes of the filesystem of the writable layer.", gauge, []string{"device"},
		func(s *containerSubject) []sample { return one(s.Filesystem.Inodes, s.Filesystem.Device) }},
	{"container_fs_inodes_free", "Free inodes of the filesystem of the writable layer.", gauge, []string{"device"},
		func(s *containerSubject) []sample { return one(s.Filesystem.FreeInodes, s.Filesystem.Device) }},
	{"container_fs_reads_bytes_total", "Bytes read from a disk.", counter, []string{"device"},
		eachDisk(func(io *cgroups.IOStats) uint64 { return io.ReadBytes })},
	{"container_fs_reads_total", "Reads from a disk.", counter, []string{"device"},
		eachDisk(func(io *cgroups.IOStats) uint64 { return io.ReadOps })},
	{"container_fs_writes_bytes_total", "Bytes written to a disk.", counter, []string{"device"},
		eachDisk(func(io *cgroups.IOStats) uint64 { return io.WriteBytes })},
	{"container_fs_writes_total", "Writes to a disk.", counter, []string{"device"},
		eachDisk(func(io *cgroups.IOStats) uint64 { return io.WriteOps })},
	{"container_blkio_device_usage_total", "Bytes read from and written to a disk.", counter,
		[]string{"device", "major", "minor", "operation"},
		func(s *containerSubject) []sample {
			var samples []sample
			for i, io := range s.Cgroup.IO {
				major, minor := strconv.FormatUint(io.Major, 10), strconv.FormatUint(io.Minor, 10)
				samples = append(samples, one(io.ReadBytes, s.Disks[i], major, minor, "Read")[0],
					one(io.WriteBytes, s.Disks[i], major, minor, "Write")[0])
			}
			return samples
		}},
}

// eachDisk reads a figure of each disk. A container that used none has used
// that of its writable layer not at all.
func eachDisk(figure func(*cgroups.IOStats) uint64) func(*containerSubject) []sample {
	return func(s *containerSubject) []sample {
		if len(s.Cgroup.IO) == 0 {
			return one(0, s.Filesystem.Device)
		}
		var samples []sample
		for i := range s.Cgroup.IO {
			samples = append(samples, one(figure(&s.Cgroup.IO[i]), s.Disks[i])...)
		}
		return samples
	}
}

var processMetrics = []containerMetric{
	{"container_processes", "Number of processes.", gauge, nil,
		func(s *containerSubject) []sample { return one(s.Processes) }},
	{"container_threads", "Number of threads.", gauge, nil,
		ofPids(func(p *cgroups.PidsStats) uint64 { return p.Current })},
	{"container_threads_max", "Limit of the number of threads; zero for none.", gauge, nil,
		ofPids(func(p *cgroups.PidsStats) uint64 { return p.Limit })},
	{"container_file_descriptors", "Number of open descriptors.", gauge, nil,
		func(s *containerSubject) []sample { return one(s.Open.Files) }},
	{"container_sockets", "Number of open sockets.", gauge, nil,
		func(s *containerSubject) []sample { return one(s.Open.Sockets) }},
	{"container_ulimits_soft", "Soft limits of the first process.", gauge, []string{"ulimit"},
		func(s *containerSubject) []sample {
			if s.MaxOpenFiles == 0 {
				return nil
			}
			return one(s.MaxOpenFiles, "max_open_files")
		}},
}

// ofPids reads a figure of tasks, where there are any.
func ofPids(figure func(*cgroups.PidsStats) uint64) func(*containerSubject) []sample {
	return func(s *containerSubject) []sample {
		if s.Cgroup.Pids == nil {
			return nil
		}
		return one(figure(s.Cgroup.Pids))
	}
}

var specMetrics = []containerMetric{
	{"container_spec_cpu_period", "Period of the CPU quota, in microseconds.", gauge, nil,
		func(s *containerSubject) []sample { return limit(s.limits().GetCpuPeriod()) }},
	{"container_spec_cpu_quota", "CPU time for each period, in microseconds.", gauge, nil,
		func(s *containerSubject) []sample { return limit(s.limits().GetCpuQuota()) }},
	{"container_spec_cpu_shares", "Weight of the CPU.", gauge, nil,
		func(s *containerSubject) []sample { return limit(s.limits().GetCpuShares()) }},
	{"container_spec_memory_limit_bytes", "Limit of memory, in bytes; zero for none.", gauge, nil,
		func(s *containerSubject) []sample { return limitOrZero(s.limits().GetMemoryLimitInBytes()) }},
	{"container_spec_memory_reservation_limit_bytes", "Memory that is protected, in bytes; zero for none.", gauge, nil,
		func(s *containerSubject) []sample {
			low, _ := strconv.ParseInt(s.limits().GetUnified()["memory.low"], 10, 64)
			return limitOrZero(low)
		}},
	{"container_spec_memory_swap_limit_bytes", "Limit of memory and swap together, in bytes; zero for none.", gauge, nil,
		func(s *containerSubject) []sample { return limitOrZero(s.limits().GetMemorySwapLimitInBytes()) }},
}

// pressureMetrics are those of a resource's pressure, where the kernel tells it.
func pressureMetrics(resource, spoken string) []containerMetric {
	total := func(line func(cgroups.PSIStats) cgroups.PSILine) func(*containerSubject) []sample {
		return func(s *containerSubject) []sample {
			psi, ok := s.Cgroup.PSI[resource]
			if !ok {
				return nil
			}
			return wholeSeconds(line(psi).TotalMicros, time.Microsecond)
		}
	}
	return []containerMetric{
		{"container_pressure_" + resource + "_waiting_seconds_total", "Time in which some task waited for " + spoken + ", in seconds.",
			counter, nil, total(func(p cgroups.PSIStats) cgroups.PSILine { return p.Some })},
		{"container_pressure_" + resource + "_stalled_seconds_total", "Time in which every task waited for " + spoken + ", in seconds.",
			counter, nil, total(func(p cgroups.PSIStats) cgroups.PSILine { return p.Full })},
	}
}

// podMetrics are the metrics of a pod as a whole.
var podMetrics = slices.Concat(
	linkMetrics("receive", "received", "receiving", func(l namespace.Link) namespace.Counters { return l.Rx }),
	linkMetrics("transmit", "sent", "sending", func(l namespace.Link) namespace.Counters { return l.Tx }),
)

// linkMetrics are those of a pod's interfaces in one direction.
func linkMetrics(name, done, doing string, side func(namespace.Link) namespace.Counters) []metric[sandbox.PodDetail] {
	each := func(figure func(namespace.Counters) uint64) func(*sandbox.PodDetail) []sample {
		return func(p *sandbox.PodDetail) []sample {
			var samples []sample
			for _, link := range p.Links {
				samples = append(samples, one(figure(side(link)), link.Name)...)
			}
			return samples
		}
	}
	labels := []string{"interface"}
	return []metric[sandbox.PodDetail]{
		{"container_network_" + name + "_bytes_total", "Bytes " + done + ".", counter, labels,
			each(func(c namespace.Counters) uint64 { return c.Bytes })},
		{"container_network_" + name + "_packets_total", "Packets " + done + ".", counter, labels,
			each(func(c namespace.Counters) uint64 { return c.Packets })},
		{"container_network_" + name + "_packets_dropped_total", "Packets dropped while " + doing + ".", counter, labels,
			each(func(c namespace.Counters) uint64 { return c.Dropped })},
		{"container_network_" + name + "_errors_total", "Errors while " + doing + ".", counter, labels,
			each(func(c namespace.Counters) uint64 { return c.Errors })},
	}
}
