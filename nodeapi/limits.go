package nodeapi

import (
	"os"
	goruntime "runtime"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// unlimited is a limit that is none.
const unlimited = -1

// docker's warnings of what the kernel does not do, and is not done therefore.
const (
	noSwapWarning       = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
	noSwappinessWarning = "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."
	noOOMKillWarning    = "Your kernel does not support OomKillDisable. OomKillDisable discarded."
)

// settleLimits fills in and leaves out of limits what docker does: a limit on memory means as much swap again, and none
// where the kernel does not count it; cgroup v2 lacks what v1 has. It returns what a person is warned of.
func (s *Server) settleLimits(res *nodev1.Resources) (warnings []string) {
	if res.GetMemoryBytes() > 0 {
		switch {
		case !s.config.Swap:
			res.MemorySwap, warnings = unlimited, append(warnings, noSwapWarning)
		case res.GetMemorySwap() == 0:
			res.MemorySwap = 2 * res.GetMemoryBytes()
		}
	}
	if !s.cgroupV2() {
		return warnings
	}
	if res.GetMemorySwappiness() > 0 {
		warnings = append(warnings, noSwappinessWarning)
	}
	if res.GetOomKillDisable() {
		res.OomKillDisable, warnings = false, append(warnings, noOOMKillWarning)
	}
	res.MemorySwappiness = nil
	return warnings
}

// cgroupV2 tells whether all controllers are v2's.
func (s *Server) cgroupV2() bool { return s.config.CgroupVersion == "v2" }

// settleSwapUpdate fills in what a new limit on memory means for swap. A limit on both that nobody set follows, which
// docker leaves to the person; one that somebody set is not to be passed.
func (s *Server) settleSwapUpdate(before, change *nodev1.Resources) error {
	memory := change.GetMemoryBytes()
	switch swap := before.GetMemorySwap(); {
	case change.GetMemorySwap() != 0 && !s.config.Swap:
		change.MemorySwap = unlimited
	case change.GetMemorySwap() != 0 || memory == 0 || swap == unlimited:
	case swap == 2*before.GetMemoryBytes():
		s.settleLimits(change)
	case memory > swap:
		return failf(errdefs.ErrInvalidArgument, "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	return nil
}

// Lists of the CPUs and memory nodes that are there (sysfs-devices-system-cpu).
const (
	onlineCPUs  = "/sys/devices/system/cpu/online"
	onlineNodes = "/sys/devices/system/node/online"
)

// validateHost refuses limits that this machine cannot give, in docker's words.
func (s *Server) validateHost(spec *nodev1.ContainerSpec) error {
	res := spec.GetResources()
	cpus := goruntime.NumCPU()
	if n := res.GetNanoCpus(); n < 0 || n > 0 && n < 1e7 || n > int64(cpus)*1e9 {
		return failf(errdefs.ErrInvalidArgument, "range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	}
	if sec := spec.GetSecurity(); sec.GetWritableCgroups() && (!s.cgroupV2() || sec.GetHostCgroup()) {
		return failf(errdefs.ErrInvalidArgument, "option WritableCgroups needs cgroup v2 and a cgroup namespace of the container's own")
	}
	if s.cgroupV2() && (res.GetCpuRtRuntime() != 0 || res.GetCpuRtPeriod() != 0) {
		return failf(errdefs.ErrInvalidArgument, "kernel does not support CPU real-time scheduler")
	}
	if parent := spec.GetCgroupParent(); parent != "" && s.config.CgroupDriver == "systemd" && !strings.HasSuffix(parent, ".slice") {
		return failf(errdefs.ErrInvalidArgument, "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"")
	}
	return validateSets(res)
}

// validateSets refuses CPUs and memory nodes that are not there.
func validateSets(res *nodev1.Resources) error {
	for _, set := range []struct{ list, what, parameter, online string }{
		{res.GetCpusetCpus(), "CPUs", "cpuset cpus", onlineCPUs}, {res.GetCpusetMems(), "memory nodes", "cpuset mems", onlineNodes},
	} {
		if set.list == "" {
			continue
		}
		wanted, ok := numbers(set.list)
		if !ok {
			return failf(errdefs.ErrInvalidArgument, "invalid value %s for %s", set.list, set.parameter)
		}
		online, err := os.ReadFile(set.online)
		if err != nil {
			continue // the kernel refuses what is not there
		}
		text := strings.TrimSpace(string(online))
		there, _ := numbers(text)
		for n := range wanted {
			if !there[n] {
				return failf(errdefs.ErrInvalidArgument, "Requested %s are not available - requested %s, available: %s", set.what, set.list, text)
			}
		}
	}
	return nil
}

// maxNumber and maxList bound the CPUs and memory nodes that a list names, and its length.
const (
	maxNumber = 8192
	maxList   = 4096
)

// numbers reads a list such as "0-2,4" (cpuset(7), List format).
func numbers(list string) (all map[int]bool, ok bool) {
	all = map[int]bool{}
	if list == "" || len(list) > maxList {
		return all, list == ""
	}
	for part := range strings.SplitSeq(list, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, errTo := strconv.Atoi(last)
		if err != nil || errTo != nil || from < 0 || to < from || to > maxNumber {
			return nil, false
		}
		for n := from; n <= to; n++ {
			all[n] = true
		}
	}
	return all, true
}
