// Package cgroups makes, limits, reads and removes the cgroups of pods and
// containers, on cgroup v1, hybrid and v2. Container processes are put into
// their cgroups by libcontainer; this package owns the pod's cgroup and all
// reading.
package cgroups

import "time"

// Mode is how the host mounts cgroups.
type Mode string

// The modes. Hybrid has the controllers on v1 and an empty v2 tree beside.
const (
	V1     Mode = "v1"
	Hybrid Mode = "hybrid"
	V2     Mode = "v2"
)

// Driver says who makes cgroups.
type Driver string

// The drivers.
const (
	Cgroupfs Driver = "cgroupfs"
	Systemd  Driver = "systemd"
)

// Stats is one reading of a cgroup. A figure that the host does not offer is
// zero; a controller that is missing altogether leaves its part nil.
type Stats struct {
	// At is when the reading was made.
	At     time.Time
	CPU    *CPUStats
	Memory *MemoryStats
	Pids   *PidsStats
	IO     []IOStats
	// PSI by resource: "cpu", "memory", "io"; nil where the kernel has none.
	PSI map[string]PSIStats
	// Hugetlb by page size such as "2MB".
	Hugetlb map[string]HugetlbStats
}

// CPUStats is CPU use; all times in nanoseconds.
type CPUStats struct {
	UsageNanos, UserNanos, SystemNanos uint64
	PerCPUNanos                        []uint64
	Periods, ThrottledPeriods          uint64
	ThrottledNanos                     uint64
}

// MemoryStats is memory use; all sizes in bytes. A limit of zero means none.
// WorkingSet is Usage without InactiveFile. OOMKills counts killed processes;
// FailCount how often the limit was met.
type MemoryStats struct {
	Usage, MaxUsage, Limit        uint64
	RSS, Cache, MappedFile        uint64
	InactiveFile, ActiveFile      uint64
	WorkingSet                    uint64
	PageFaults, MajorPageFaults   uint64
	FailCount                     uint64
	SwapUsage, SwapLimit          uint64
	KernelUsage, Socket, Slab     uint64
	OOMKills                      uint64
	TotalActiveAnon, InactiveAnon uint64
}

// PidsStats counts tasks; Limit zero means none. Refused counts those that the
// limit kept from being made.
type PidsStats struct {
	Current, Limit, Refused uint64
}

// IOStats is block I/O of one device.
type IOStats struct {
	Major, Minor          uint64
	ReadBytes, WriteBytes uint64
	ReadOps, WriteOps     uint64
}

// HugetlbStats is huge page use of one page size, in bytes.
type HugetlbStats struct {
	Usage, MaxUsage, Failcnt uint64
}

// PSIStats is pressure stall information of one resource
// (Documentation/accounting/psi.rst).
type PSIStats struct {
	Some, Full PSILine
}

// PSILine is a line of a pressure file: percentages and the total in
// microseconds.
type PSILine struct {
	Avg10, Avg60, Avg300 float64
	TotalMicros          uint64
}
