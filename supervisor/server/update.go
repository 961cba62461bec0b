package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
)

// Update changes the limits that the request names.
func (s *Server) Update(ctx context.Context, req *v1.UpdateRequest) (*v1.Empty, error) {
	var res specs.LinuxResources
	if err := json.Unmarshal(req.Resources, &res); err != nil {
		return nil, fmt.Errorf("update container %s: decode resources: %w: %w", req.Id, err, errdefs.ErrInvalidArgument)
	}
	c, err := s.findRunning(req.Id)
	if err != nil {
		return nil, fmt.Errorf("update %w", err)
	}
	if err := c.acquire(ctx); err != nil {
		return nil, fmt.Errorf("update %w", err)
	}
	defer c.release()
	handle, err := s.loaded(c)
	if err != nil {
		return nil, fmt.Errorf("update %w", err)
	}
	// The handle's own configuration must stay as it is until the kernel
	// took the new one, so a copy is changed.
	config := handle.Config()
	group := *config.Cgroups
	resources := *group.Resources
	merge(&resources, &res)
	resources.SkipDevices = true
	group.Resources = &resources
	config.Cgroups = &group
	err = handle.Set(config)
	// SkipDevices must not stay with a handle that execs use.
	c.mu.Lock()
	c.handle = nil
	c.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("update container %s: %w", c.id, refused(err))
	}
	return &v1.Empty{}, nil
}

// refused gives the refusal of a limit its kind: the kernel does not take it at
// all, or not while so much is in use, which libcontainer only says in words.
func refused(err error) error {
	switch {
	case errors.Is(err, libcontainer.ErrNotRunning):
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	case errors.Is(err, unix.EBUSY), strings.HasPrefix(err.Error(), "unable to set memory limit"), strings.HasPrefix(err.Error(), "rejecting memory"):
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return err
}

// merge writes what res names over r and leaves the rest.
func merge(r *cgroups.Resources, res *specs.LinuxResources) {
	mergeCPU(r, res.CPU)
	mergeMemory(r, res.Memory)
	if res.Pids != nil && res.Pids.Limit != nil {
		r.PidsLimit = res.Pids.Limit
	}
	if res.BlockIO != nil && res.BlockIO.Weight != nil {
		r.BlkioWeight = *res.BlockIO.Weight
	}
	for _, h := range res.HugepageLimits {
		mergeHugepages(r, h)
	}
	if len(res.Unified) > 0 {
		merged := maps.Clone(r.Unified)
		if merged == nil {
			merged = map[string]string{}
		}
		maps.Copy(merged, res.Unified)
		r.Unified = merged
	}
}

func mergeCPU(r *cgroups.Resources, cpu *specs.LinuxCPU) {
	if cpu == nil {
		return
	}
	if cpu.Shares != nil {
		r.CpuShares = *cpu.Shares
		r.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(*cpu.Shares)
	}
	set(&r.CpuPeriod, cpu.Period)
	set(&r.CpuQuota, cpu.Quota)
	set(&r.CpuRtPeriod, cpu.RealtimePeriod)
	set(&r.CpuRtRuntime, cpu.RealtimeRuntime)
	if cpu.Burst != nil {
		r.CpuBurst = cpu.Burst
	}
	if cpu.Idle != nil {
		r.CPUIdle = cpu.Idle
	}
	if cpu.Cpus != "" {
		r.CpusetCpus = cpu.Cpus
	}
	if cpu.Mems != "" {
		r.CpusetMems = cpu.Mems
	}
}

func mergeMemory(r *cgroups.Resources, m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	set(&r.Memory, m.Limit)
	set(&r.MemorySwap, m.Swap)
	set(&r.MemoryReservation, m.Reservation)
	set(&r.MemoryCheckBeforeUpdate, m.CheckBeforeUpdate)
	if m.Swappiness != nil {
		r.MemorySwappiness = m.Swappiness
	}
	if m.Limit != nil && m.Swap == nil && *m.Limit == -1 {
		// No limit on memory cannot stand beside one on memory and swap.
		r.MemorySwap = -1
	}
}

func mergeHugepages(r *cgroups.Resources, h specs.LinuxHugepageLimit) {
	limits := append([]*cgroups.HugepageLimit(nil), r.HugetlbLimit...)
	for i, have := range limits {
		if have.Pagesize == h.Pagesize {
			limits[i] = &cgroups.HugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit}
			r.HugetlbLimit = limits
			return
		}
	}
	r.HugetlbLimit = append(limits, &cgroups.HugepageLimit{Pagesize: h.Pagesize, Limit: h.Limit})
}

// set assigns *from when it is there.
func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}
