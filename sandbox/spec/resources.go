package spec

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// resources sets the limits of the container's cgroup and its OOM score.
func (b *builder) resources() error {
	cri := b.cfg.GetLinux().GetResources()
	res, err := Resources(cri, b.in.Host)
	if err != nil {
		return err
	}
	res.Devices = b.spec.Linux.Resources.Devices
	if b.in.PidsLimit > 0 && res.Pids == nil {
		res.Pids = &specs.LinuxPids{Limit: pointer(b.in.PidsLimit)}
	}
	b.spec.Linux.Resources = res
	if cri != nil {
		b.spec.Process.OOMScoreAdj = pointer(int(cri.GetOomScoreAdj()))
	}
	return nil
}

// Resources converts limits as CRI gives them, for a container or a pod's
// cgroup. What CRI leaves at zero stays unset; nil gives an empty result. The
// result is without device rules and never nil when err is.
func Resources(cri *runtime.LinuxContainerResources, host Features) (*specs.LinuxResources, error) {
	return ResourcesOf("linux.resources", cri, host)
}

// ResourcesOf is Resources for those of a field that CRI has under another name.
func ResourcesOf(field string, cri *runtime.LinuxContainerResources, host Features) (*specs.LinuxResources, error) {
	res := &specs.LinuxResources{}
	if cri == nil {
		return res, nil
	}
	if adj := cri.GetOomScoreAdj(); adj < -1000 || adj > 1000 {
		return nil, invalid(field+".oom_score_adj", "%d is not in -1000-1000", adj)
	}
	for _, convert := range []func(string, *runtime.LinuxContainerResources, Features, *specs.LinuxResources) error{
		cpuLimits, memoryLimits, hugepageLimits, unifiedLimits,
	} {
		if err := convert(field, cri, host, res); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// Bounds of the kernel: MAX_SHARES, and max_cfs_runtime in microseconds.
const (
	maxShares = 1 << 18
	maxQuota  = 1<<44 - 1
)

func cpuLimits(field string, cri *runtime.LinuxContainerResources, _ Features, res *specs.LinuxResources) error {
	cpu := specs.LinuxCPU{Cpus: cri.GetCpusetCpus(), Mems: cri.GetCpusetMems()}
	for _, set := range []struct{ field, list string }{{"cpuset_cpus", cpu.Cpus}, {"cpuset_mems", cpu.Mems}} {
		if set.list != "" && !idList(set.list) {
			return invalid(field+"."+set.field, "%.300q is not a list such as 0-2,4", set.list)
		}
	}
	switch shares := cri.GetCpuShares(); {
	case shares < 0 || shares > maxShares:
		return invalid(field+".cpu_shares", "%d is not in 0-%d", shares, maxShares)
	case shares > 0:
		cpu.Shares = pointer(uint64(shares))
	}
	// The bounds are the kernel's (kernel/sched/core.c, tg_set_cfs_bandwidth).
	switch period := cri.GetCpuPeriod(); {
	case period != 0 && (period < 1000 || period > 1_000_000):
		return invalid(field+".cpu_period", "%d µs is not in 1000-1000000", period)
	case period != 0:
		cpu.Period = pointer(uint64(period))
	}
	switch quota := cri.GetCpuQuota(); {
	case quota < -1 || quota > 0 && quota < 1000 || quota > maxQuota:
		return invalid(field+".cpu_quota", "%d µs is neither -1 nor in 1000-%d", quota, int64(maxQuota))
	case quota != 0:
		cpu.Quota = pointer(quota)
	}
	if cpu != (specs.LinuxCPU{}) {
		res.CPU = &cpu
	}
	return nil
}

func memoryLimits(field string, cri *runtime.LinuxContainerResources, host Features, res *specs.LinuxResources) error {
	limit, swap := cri.GetMemoryLimitInBytes(), cri.GetMemorySwapLimitInBytes()
	switch {
	case limit < -1:
		return invalid(field+".memory_limit_in_bytes", "%d is negative", limit)
	case swap < -1:
		return invalid(field+".memory_swap_limit_in_bytes", "%d is negative", swap)
	case swap > 0 && limit <= 0:
		return invalid(field+".memory_swap_limit_in_bytes", "is set without a memory limit")
	case swap > 0 && swap < limit:
		return invalid(field+".memory_swap_limit_in_bytes", "%d is below the memory limit %d, and means memory and swap together", swap, limit)
	case swap > max(limit, 0) && !host.Swap:
		return unsupported(field+".memory_swap_limit_in_bytes", "this host does not account swap")
	case limit == 0 && swap == 0:
		return nil
	}
	res.Memory = &specs.LinuxMemory{}
	if limit != 0 {
		res.Memory.Limit = pointer(limit)
	}
	if swap == 0 && limit > 0 {
		// No word on swap means none: a container gets none beside
		// its limit unless it was granted.
		swap = limit
	}
	if host.Swap && swap != 0 {
		res.Memory.Swap = pointer(swap)
	}
	return nil
}

var hugepageSize = regexp.MustCompile(`^[1-9][0-9]{0,6}(KB|MB|GB)$`)

func hugepageLimits(field string, cri *runtime.LinuxContainerResources, host Features, res *specs.LinuxResources) error {
	for i, l := range cri.GetHugepageLimits() {
		field := fmt.Sprintf("%s.hugepage_limits[%d]", field, i)
		if !hugepageSize.MatchString(l.GetPageSize()) {
			return invalid(field+".page_size", "%.300q is not a size such as 2MB", l.GetPageSize())
		}
		if !host.HugeTLB {
			// kubelet forbids every size it knows of by name; without
			// the controller there is nothing to forbid.
			if l.GetLimit() == 0 {
				continue
			}
			return unsupported(field+".limit", "this host has no hugetlb controller")
		}
		res.HugepageLimits = append(res.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: l.GetPageSize(), Limit: l.GetLimit()})
	}
	return nil
}

var unifiedKey = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[A-Za-z0-9_]+)+$`)

func unifiedLimits(field string, cri *runtime.LinuxContainerResources, host Features, res *specs.LinuxResources) error {
	if len(cri.GetUnified()) == 0 {
		return nil
	}
	// Sorted, so that one configuration always gives one error.
	for _, key := range slices.Sorted(maps.Keys(cri.GetUnified())) {
		// Files of the core decide who is where, and limit nothing.
		if !unifiedKey.MatchString(key) || strings.HasPrefix(key, "cgroup.") {
			return invalid(field+".unified", "%.300q is not a controller's file", key)
		}
		if strings.ContainsRune(cri.GetUnified()[key], 0) {
			return invalid(field+".unified", "the value of %s contains a NUL byte", key)
		}
	}
	if host.Cgroups != CgroupV2 {
		return pidsLimit(field, cri.GetUnified(), res)
	}
	res.Unified = maps.Clone(cri.GetUnified())
	return nil
}

// pidsLimit takes the one file of cgroup v2 that means the same on v1, where
// CRI has no other word for it.
func pidsLimit(field string, unified map[string]string, res *specs.LinuxResources) error {
	limit, ok := unified["pids.max"]
	if !ok || len(unified) > 1 {
		return unsupported(field+".unified", "this host has no cgroup v2 controllers")
	}
	res.Pids = &specs.LinuxPids{Limit: pointer(int64(-1))}
	if limit == "max" {
		return nil
	}
	n, err := strconv.ParseInt(limit, 10, 64)
	if err != nil || n < 0 {
		return invalid(field+".unified", "pids.max: %.300q is neither a number nor max", limit)
	}
	res.Pids.Limit = &n
	return nil
}

// idList tells a list of CPUs or memory nodes such as "0-2,4".
func idList(s string) bool {
	if len(s) > 4096 {
		return false
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, ranged := strings.Cut(part, "-")
		from, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return false
		}
		if to, err := strconv.ParseUint(last, 10, 16); ranged && (err != nil || to < from) {
			return false
		}
	}
	return true
}
