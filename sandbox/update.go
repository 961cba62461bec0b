package sandbox

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/sandbox/spec"
)

// rollbackTime bounds the taking back of an update.
const rollbackTime = 10 * time.Second

// UpdateContainer changes the resources of a container. What is zero in res
// stays as it is. It holds as a whole or not at all: when a limit is refused,
// or the update cannot be recorded, the running container gets its former
// limits back. A container that does not run is only recorded.
func (m *Manager) UpdateContainer(ctx context.Context, containerID string, res *runtime.LinuxContainerResources) error {
	return m.UpdateContainerLimits(ctx, containerID, res, nil)
}

// UpdateContainerLimits is UpdateContainer with the limits that CRI has no word for; what is zero in extra, or nil, stays.
// Where there was no such limit before, an update that fails later may leave the new one.
func (m *Manager) UpdateContainerLimits(ctx context.Context, containerID string, res *runtime.LinuxContainerResources, extra *spec.Extra) error {
	c, err := m.findContainer(containerID)
	if err != nil {
		return fmt.Errorf("update %w", err)
	}
	if err := m.updateContainer(ctx, c, res, extra); err != nil {
		return fmt.Errorf("update container %s: %w", c.get().ID, err)
	}
	return nil
}

func (m *Manager) updateContainer(ctx context.Context, c *container, res *runtime.LinuxContainerResources, change *spec.Extra) error {
	if err := acquire(ctx, c.busy); err != nil {
		return err
	}
	defer c.busy.release()
	s := c.get()
	before := s.Config.GetLinux().GetResources()
	config := proto.CloneOf(s.Config)
	if config.Linux == nil {
		config.Linux = &runtime.LinuxContainerConfig{}
	}
	config.Linux.Resources = mergeResources(before, res)
	extra := s.Extra.WithLimits(change)
	if _, err := spec.ResourcesOf("linux", config.Linux.Resources, m.cfg.Features); err != nil {
		return err
	}
	var steps []undo.Step
	if s.State.alive() {
		former, err := m.formerResources(s.CgroupPath, before, config.Linux.Resources)
		if err != nil {
			return err
		}
		intent, err := newUpdateIntent(former, config.Linux.Resources)
		if err != nil {
			return err
		}
		steps = append(steps, undo.Step{Name: "intend", Plain: true, Do: func(context.Context) error {
			return m.changeContainer(c, func(s *containerState) { s.Update = intent })
		}}, undo.Step{
			Name:  "limit",
			Plain: true,
			Do:    func(ctx context.Context) error { return m.limit(ctx, s.ID, config.Linux.Resources, extra) },
			Undo:  func(ctx context.Context) error { return m.endUpdate(ctx, c) },
		}, m.rescore(s, before.GetOomScoreAdj(), config.Linux.Resources.GetOomScoreAdj()))
	}
	steps = append(steps, undo.Step{Name: "record", Plain: true, Do: func(context.Context) error {
		return m.changeContainer(c, func(s *containerState) { s.Config, s.Extra, s.Update = config, extra, nil })
	}})
	err := undo.Sequence{Name: "update", Steps: steps, Timeout: rollbackTime}.Run(ctx)
	c.setPrepared(nil)
	return err
}

// limit sets the limits of a running container. One on memory that is below
// what is in use is refused: cgroup v2 would kill to get there.
func (m *Manager) limit(ctx context.Context, id string, res *runtime.LinuxContainerResources, extra *spec.Extra) error {
	limits, err := spec.Resources(res, m.cfg.Features)
	if err != nil {
		return err
	}
	extra.Limit(limits)
	if limits.Memory != nil {
		check := true
		limits.Memory.CheckBeforeUpdate = &check
	}
	sup, err := m.supervisor()
	if err != nil {
		return err
	}
	words := "update container " + id
	return unsaid(unsaid(sup.Update(ctx, id, limits), words+": "), words+" ")
}

// What the kernel has where nothing was asked for.
const (
	noLimit       = -1
	defaultPeriod = 100_000
	defaultShares = 1024
)

// formerResources is what undoes the change from before to after in a cgroup:
// before, and where it has nothing to say of what after changes, what the
// kernel had.
func (m *Manager) formerResources(path string, before, after *runtime.LinuxContainerResources) (*runtime.LinuxContainerResources, error) {
	former := mergeResources(before, nil)
	for _, f := range []struct {
		to    *int64
		after int64
		value int64
	}{
		{&former.CpuPeriod, after.GetCpuPeriod(), defaultPeriod},
		{&former.CpuQuota, after.GetCpuQuota(), noLimit},
		{&former.CpuShares, after.GetCpuShares(), defaultShares},
		{&former.MemoryLimitInBytes, after.GetMemoryLimitInBytes(), noLimit},
	} {
		if *f.to == 0 && f.after != 0 {
			*f.to = f.value
		}
	}
	if former.CpusetCpus == "" && after.GetCpusetCpus() != "" || former.CpusetMems == "" && after.GetCpusetMems() != "" {
		cpus, mems, err := m.deps.Cgroups.Cpuset(path)
		if err != nil {
			return nil, err
		}
		former.CpusetCpus = cmp.Or(former.CpusetCpus, cpus)
		former.CpusetMems = cmp.Or(former.CpusetMems, mems)
	}
	for _, l := range after.GetHugepageLimits() {
		if !slices.ContainsFunc(former.HugepageLimits, func(have *runtime.HugepageLimit) bool { return have.GetPageSize() == l.GetPageSize() }) {
			former.HugepageLimits = append(former.HugepageLimits, &runtime.HugepageLimit{PageSize: l.GetPageSize(), Limit: math.MaxUint64})
		}
	}
	return former, m.formerFiles(path, former, after)
}

// formerFiles adds what files of the cgroup held that only after names.
func (m *Manager) formerFiles(path string, former, after *runtime.LinuxContainerResources) error {
	var names []string
	for name := range after.GetUnified() {
		if _, ok := former.GetUnified()[name]; !ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	held, err := m.deps.Cgroups.Files(path, names)
	if err != nil {
		return err
	}
	maps.Copy(held, former.Unified)
	former.Unified = held
	return nil
}

// mergeResources gives what holds when change is applied to before.
func mergeResources(before, change *runtime.LinuxContainerResources) *runtime.LinuxContainerResources {
	out := &runtime.LinuxContainerResources{}
	if before != nil {
		out = proto.CloneOf(before)
	}
	for _, f := range []struct {
		to   *int64
		from int64
	}{
		{&out.CpuPeriod, change.GetCpuPeriod()},
		{&out.CpuQuota, change.GetCpuQuota()},
		{&out.CpuShares, change.GetCpuShares()},
		{&out.MemoryLimitInBytes, change.GetMemoryLimitInBytes()},
		{&out.MemorySwapLimitInBytes, change.GetMemorySwapLimitInBytes()},
		{&out.OomScoreAdj, change.GetOomScoreAdj()},
	} {
		if f.from != 0 {
			*f.to = f.from
		}
	}
	if v := change.GetCpusetCpus(); v != "" {
		out.CpusetCpus = v
	}
	if v := change.GetCpusetMems(); v != "" {
		out.CpusetMems = v
	}
	for _, l := range change.GetHugepageLimits() {
		out.HugepageLimits = slices.DeleteFunc(out.HugepageLimits, func(have *runtime.HugepageLimit) bool {
			return have.GetPageSize() == l.GetPageSize()
		})
		out.HugepageLimits = append(out.HugepageLimits, proto.CloneOf(l))
	}
	if v := change.GetUnified(); len(v) > 0 {
		merged := maps.Clone(out.Unified)
		if merged == nil {
			merged = map[string]string{}
		}
		maps.Copy(merged, v)
		out.Unified = merged
	}
	return out
}

// UpdatePod records the resources of a pod as a whole, and sets them where
// the pod's cgroup is ours; elsewhere who made the cgroup limits it.
func (m *Manager) UpdatePod(ctx context.Context, podID string, overhead, resources *runtime.LinuxContainerResources) error {
	p, err := m.findPod(podID)
	if err != nil {
		return fmt.Errorf("update %w", err)
	}
	if err := m.updatePod(ctx, p, overhead, resources); err != nil {
		return fmt.Errorf("update pod %s: %w", p.get().ID, err)
	}
	return nil
}

func (m *Manager) updatePod(ctx context.Context, p *pod, overhead, resources *runtime.LinuxContainerResources) error {
	if err := acquire(ctx, p.busy); err != nil {
		return err
	}
	defer p.busy.release()
	s := p.get()
	before := s.Config.GetLinux().GetResources()
	config := proto.CloneOf(s.Config)
	if config.Linux == nil {
		config.Linux = &runtime.LinuxPodSandboxConfig{}
	}
	if overhead != nil {
		config.Linux.Overhead = mergeResources(config.Linux.Overhead, overhead)
		if _, err := spec.ResourcesOf("overhead", config.Linux.Overhead, m.cfg.Features); errdefs.IsInvalidArgument(err) {
			return err
		}
	}
	var steps []undo.Step
	if resources != nil {
		config.Linux.Resources = mergeResources(before, resources)
		limits, err := spec.ResourcesOf("resources", config.Linux.Resources, m.cfg.Features)
		// What this host cannot do is nothing to who limits the cgroup itself.
		if err != nil && (s.OwnsCgroup || errdefs.IsInvalidArgument(err)) {
			return err
		}
		if s.OwnsCgroup && s.State == PodReady {
			former, err := m.formerResources(s.CgroupPath, before, config.Linux.Resources)
			if err != nil {
				return err
			}
			intent, err := newUpdateIntent(former, nil)
			if err != nil {
				return err
			}
			steps = append(steps, undo.Step{Name: "intend", Plain: true, Do: func(context.Context) error {
				return m.changePod(p, func(s *podState) { s.Update = intent })
			}}, undo.Step{
				Name:  "limit",
				Plain: true,
				Do:    func(ctx context.Context) error { return m.deps.Cgroups.Update(ctx, s.CgroupPath, limits) },
				Undo:  func(ctx context.Context) error { return m.endPodUpdate(ctx, p) },
			})
		}
	}
	steps = append(steps, undo.Step{Name: "record", Plain: true, Do: func(context.Context) error {
		return m.changePod(p, func(s *podState) { s.Config, s.Update = config, nil })
	}})
	return undo.Sequence{Name: "updatepod", Steps: steps, Timeout: rollbackTime}.Run(ctx)
}
