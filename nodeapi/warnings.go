package nodeapi

import (
	"fmt"

	"github.com/containerd/platforms"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A limitation is something that not every kernel can limit. As docker does,
// what it cannot is left out, and told.
type limitation struct {
	asked func(*nodev1.Resources) bool
	drop  func(*nodev1.Resources)
	// controller has one of the files on v1 or on v2 where it can.
	controller string
	v1, v2     []string
	warning    string
}

// limitations are those that docker tells of, in its words. What is left out
// may take another with it, so that the order counts.
var limitations = []limitation{
	{
		func(r *nodev1.Resources) bool { return r.GetMemoryBytes() > 0 },
		func(r *nodev1.Resources) { r.MemoryBytes, r.MemorySwap = 0, 0 },
		"memory", []string{"memory.limit_in_bytes"}, []string{"memory.max"},
		"Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
	},
	{
		func(r *nodev1.Resources) bool { return r.GetMemoryReservation() > 0 },
		func(r *nodev1.Resources) { r.MemoryReservation = 0 },
		"memory", []string{"memory.soft_limit_in_bytes"}, []string{"memory.low"},
		"Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
	},
	{
		// No kernel since 5.4 does, whatever files it has.
		func(r *nodev1.Resources) bool { return r.GetKernelMemory() > 0 },
		func(r *nodev1.Resources) { r.KernelMemory = 0 },
		"", nil, nil,
		"Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
	},
	{
		func(r *nodev1.Resources) bool { return r.GetPidsLimit() > 0 },
		func(r *nodev1.Resources) { r.PidsLimit = 0 },
		"pids", []string{"pids.max"}, []string{"pids.max"},
		"Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
	},
	{
		func(r *nodev1.Resources) bool { return r.GetCpuShares() > 0 },
		func(r *nodev1.Resources) { r.CpuShares = 0 },
		"cpu", []string{"cpu.shares"}, []string{"cpu.weight"},
		"Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
	},
	{
		func(r *nodev1.Resources) bool { return r.GetCpuPeriod() != 0 || r.GetCpuQuota() != 0 },
		func(r *nodev1.Resources) { r.CpuPeriod, r.CpuQuota = 0, 0 },
		"cpu", []string{"cpu.cfs_quota_us"}, []string{"cpu.max"},
		"Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
	},
	{
		func(r *nodev1.Resources) bool { return r.GetCpusetCpus() != "" || r.GetCpusetMems() != "" },
		func(r *nodev1.Resources) { r.CpusetCpus, r.CpusetMems = "", "" },
		"cpuset", []string{"cpuset.cpus"}, []string{"cpuset.cpus"},
		"Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
	},
	{
		func(r *nodev1.Resources) bool { return r.GetBlkioWeight() > 0 },
		func(r *nodev1.Resources) { r.BlkioWeight = 0 },
		blkio, []string{"blkio.weight", "blkio.bfq.weight"}, []string{"io.weight", "io.bfq.weight"},
		"Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
	},
	{
		func(r *nodev1.Resources) bool { return len(r.GetBlkioWeightDevice()) > 0 },
		func(r *nodev1.Resources) { r.BlkioWeightDevice = nil },
		blkio, []string{"blkio.weight_device", "blkio.bfq.weight_device"}, []string{"io.bfq.weight"},
		"Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
	},
	{
		func(r *nodev1.Resources) bool { return len(r.GetDeviceReadBps()) > 0 },
		func(r *nodev1.Resources) { r.DeviceReadBps = nil },
		blkio, []string{"blkio.throttle.read_bps_device"}, []string{"io.max"},
		"Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
	},
	{
		func(r *nodev1.Resources) bool { return len(r.GetDeviceWriteBps()) > 0 },
		func(r *nodev1.Resources) { r.DeviceWriteBps = nil },
		blkio, []string{"blkio.throttle.write_bps_device"}, []string{"io.max"},
		"Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
	},
	{
		func(r *nodev1.Resources) bool { return len(r.GetDeviceReadIops()) > 0 },
		func(r *nodev1.Resources) { r.DeviceReadIops = nil },
		blkio, []string{"blkio.throttle.read_iops_device"}, []string{"io.max"},
		"Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
	},
	{
		func(r *nodev1.Resources) bool { return len(r.GetDeviceWriteIops()) > 0 },
		func(r *nodev1.Resources) { r.DeviceWriteIops = nil },
		blkio, []string{"blkio.throttle.write_iops_device"}, []string{"io.max"},
		"Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
	},
}

// blkio is the controller of block devices, which has another name on v2.
const blkio = "blkio"

// discardLimits leaves out what this kernel cannot limit, and says so.
func (s *Server) discardLimits(res *nodev1.Resources) []string {
	if res == nil {
		return nil
	}
	var warnings []string
	for _, l := range limitations {
		if l.asked(res) && !s.canLimit(l) {
			warnings = append(warnings, l.warning)
			l.drop(res)
		}
	}
	return warnings
}

// limitWarnings leaves out and fills in of limits what docker does, and returns
// what a person is told.
func (s *Server) limitWarnings(res *nodev1.Resources) []string {
	warnings := append(s.discardLimits(res), s.settleLimits(res)...)
	if res.GetOomKillDisable() && res.GetMemoryBytes() == 0 {
		warnings = append(warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	return warnings
}

// canLimit says whether this kernel can.
func (s *Server) canLimit(l limitation) bool {
	if s.cgroups == nil || l.controller == "" {
		return l.controller != ""
	}
	return s.cgroups.Has(l.controller, l.v1, l.v2) || l.controller == blkio && s.cgroups.Has("io", l.v1, l.v2)
}

// networkWarnings tell of what has no meaning on the network asked for.
func networkWarnings(spec *nodev1.ContainerSpec) []string {
	net := spec.GetNetwork()
	if net.GetMode() == networkHost && len(net.GetPorts()) > 0 {
		return []string{"Published ports are discarded when using host network mode"}
	}
	return nil
}

// platformWarnings tell of an image that is for other machines.
func platformWarnings(spec *nodev1.ContainerSpec, image *ocispec.Image) []string {
	if spec.GetPlatform() != "" || image == nil || image.Architecture == "" {
		return nil
	}
	host := platforms.DefaultSpec()
	if platforms.Only(host).Match(image.Platform) {
		return nil
	}
	return []string{fmt.Sprintf(
		"The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested",
		platforms.FormatAll(image.Platform), platforms.FormatAll(host))}
}
