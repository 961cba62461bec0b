package sandbox

import (
	"errors"
	"math"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/sandbox/spec"
)

// failAt makes a step of a sequence fail for the rest of the test.
func failAt(t *testing.T, name string) (disable func()) {
	t.Helper()
	disable, err := failpoint.Enable(name + "=error")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(disable)
	return disable
}

func TestUpdateContainerIsRolledBack(t *testing.T) {
	for _, step := range []string{"update.limit.after", "update.record.before"} {
		t.Run(step, func(t *testing.T) {
			w, m := start(t)
			_, id := running(t, m)
			before := &runtime.LinuxContainerResources{CpuShares: 700}
			if err := m.UpdateContainer(t.Context(), id, before); err != nil {
				t.Fatal(err)
			}
			disable := failAt(t, step)
			change := &runtime.LinuxContainerResources{CpuShares: 800, CpuQuota: 5000, CpuPeriod: 50000, CpusetCpus: "0", MemoryLimitInBytes: 1 << 20}
			if err := m.UpdateContainer(t.Context(), id, change); !errors.Is(err, failpoint.ErrInjected) {
				t.Fatal(err)
			}
			c, err := m.Container(id)
			if err != nil || !proto.Equal(c.Config.Linux.Resources, before) {
				t.Errorf("recorded %v, %v", c.Config.Linux.Resources, err)
			}
			res := w.limitsOf(id)
			if *res.CPU.Shares != 700 || *res.CPU.Quota != -1 || *res.CPU.Period != 100000 || res.CPU.Cpus != "0-1" || *res.Memory.Limit != -1 {
				t.Errorf("limits are %+v, %+v", res.CPU, res.Memory)
			}
			disable()
			if err := m.UpdateContainer(t.Context(), id, change); err != nil {
				t.Fatal(err)
			}
			if res := w.limitsOf(id); *res.CPU.Shares != 800 || res.CPU.Cpus != "0" || !*res.Memory.CheckBeforeUpdate {
				t.Errorf("limits are %+v, %+v", res.CPU, res.Memory)
			}
		})
	}
}

// Killed before it has recorded new limits, the agent goes back to the former
// ones when it starts.
func TestKilledInUpdate(t *testing.T) {
	before, change := &runtime.LinuxContainerResources{CpuShares: 700}, &runtime.LinuxContainerResources{CpuShares: 800, CpuQuota: 5000}
	for _, step := range []string{"intend.after", "limit.after", "oomscore.after", "record.before"} {
		t.Run(step, func(t *testing.T) {
			var id string
			w, m := killAt(t, "update."+step, func(m *Manager) {
				_, id = running(t, m)
				if err := m.UpdateContainer(t.Context(), id, before); err != nil {
					t.Fatal(err)
				}
			}, func(m *Manager) error { return m.UpdateContainer(t.Context(), id, change) })
			c, err := m.findContainer(id)
			if err != nil {
				t.Fatal(err)
			}
			if s := c.get(); s.Update != nil || !proto.Equal(s.Config.Linux.Resources, before) {
				t.Errorf("recorded %v, %v", s.Config.Linux.Resources, s.Update)
			}
			if res := w.limitsOf(id); *res.CPU.Shares != 700 || *res.CPU.Quota != -1 {
				t.Errorf("limits are %+v", res.CPU)
			}
		})
	}
}

// What cannot be set back at one start is at the next.
func TestKilledInUpdateAndAgain(t *testing.T) {
	w, m := start(t)
	_, id := running(t, m)
	w.setFail("Update", errors.New("no"))
	if err := m.UpdateContainer(t.Context(), id, &runtime.LinuxContainerResources{CpuShares: 800}); err == nil {
		t.Fatal("the update succeeded")
	}
	c, err := m.findContainer(id)
	if err != nil {
		t.Fatal(err)
	}
	if c.get().Update == nil {
		t.Fatal("what was not taken back is forgotten")
	}
	w.setFail("Update", nil)
	if err := m.endUpdate(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if res := w.limitsOf(id); *res.CPU.Shares != 1024 || c.get().Update != nil {
		t.Errorf("limits are %+v, %v", res.CPU, c.get().Update)
	}
}

func TestKilledInUpdateOfPod(t *testing.T) {
	var id string
	w, m := killAt(t, "updatepod.limit.after", func(m *Manager) { id = readyPod(t, m) }, func(m *Manager) error {
		return m.UpdatePod(t.Context(), id, nil, &runtime.LinuxContainerResources{CpuShares: 800})
	})
	p, err := m.findPod(id)
	if err != nil {
		t.Fatal(err)
	}
	if s := p.get(); s.Update != nil || s.Config.GetLinux().GetResources() != nil || *w.limitsOf(s.CgroupPath).CPU.Shares != 1024 {
		t.Errorf("recorded %v, %v; limits are %+v", s.Config.GetLinux(), s.Update, w.limitsOf(s.CgroupPath).CPU)
	}
}

// What had no limit before gets back what the kernel had.
func TestUpdateOfNewLimitsIsRolledBack(t *testing.T) {
	w, m := start(t)
	m.cfg.Features = spec.Features{Cgroups: spec.CgroupV2, HugeTLB: true}
	_, id := running(t, m)
	if err := m.UpdateContainer(t.Context(), id, &runtime.LinuxContainerResources{Unified: map[string]string{"memory.low": "5"}}); err != nil {
		t.Fatal(err)
	}
	failAt(t, "update.record.before")
	change := &runtime.LinuxContainerResources{
		Unified:        map[string]string{"memory.low": "6", "memory.high": "7"},
		HugepageLimits: []*runtime.HugepageLimit{{PageSize: "2MB", Limit: 1 << 21}},
	}
	if err := m.UpdateContainer(t.Context(), id, change); !errors.Is(err, failpoint.ErrInjected) {
		t.Fatal(err)
	}
	res := w.limitsOf(id)
	if res.Unified["memory.low"] != "5" || res.Unified["memory.high"] != "held" || len(res.HugepageLimits) != 1 || res.HugepageLimits[0].Limit != math.MaxUint64 {
		t.Errorf("limits are %v, %v", res.Unified, res.HugepageLimits)
	}
}

func TestUpdateContainerPaused(t *testing.T) {
	w, m := start(t)
	_, id := running(t, m)
	c, err := m.findContainer(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.changeContainer(c, func(s *containerState) { s.State = ContainerPaused }); err != nil {
		t.Fatal(err)
	}
	if err := m.UpdateContainer(t.Context(), id, &runtime.LinuxContainerResources{CpuShares: 300}); err != nil {
		t.Fatal(err)
	}
	if *w.limitsOf(id).CPU.Shares != 300 || c.get().State != ContainerPaused {
		t.Errorf("%+v in state %s", w.limitsOf(id).CPU, c.get().State)
	}
	for _, bad := range []*runtime.LinuxContainerResources{{CpuShares: -1}, {CpusetCpus: "a"}, {MemoryLimitInBytes: -5}} {
		if err := m.UpdateContainer(t.Context(), id, bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestUpdatePod(t *testing.T) {
	w, m := start(t)
	id := readyPod(t, m)
	res, overhead := &runtime.LinuxContainerResources{CpuShares: 300}, &runtime.LinuxContainerResources{MemoryLimitInBytes: 1 << 20}
	if err := m.UpdatePod(t.Context(), id, overhead, res); err != nil {
		t.Fatal(err)
	}
	pod, _ := m.Pod(id)
	if *w.limitsOf(pod.CgroupPath).CPU.Shares != 300 || !proto.Equal(pod.Config.Linux.Overhead, overhead) {
		t.Errorf("%+v, %v", w.limitsOf(pod.CgroupPath), pod.Config.Linux)
	}
	disable := failAt(t, "updatepod.record.before")
	if err := m.UpdatePod(t.Context(), id, nil, &runtime.LinuxContainerResources{CpuShares: 900}); err == nil {
		t.Error("the update was recorded")
	}
	disable()
	pod, _ = m.Pod(id)
	if *w.limitsOf(pod.CgroupPath).CPU.Shares != 300 || pod.Config.Linux.Resources.CpuShares != 300 {
		t.Errorf("%+v, %v", w.limitsOf(pod.CgroupPath).CPU, pod.Config.Linux)
	}
}

// Who made a pod's parent limits it; what is told of that is only noted, and
// never refused for what this host cannot do.
func TestUpdatePodOfKubelet(t *testing.T) {
	w, m := start(t)
	req := podRequest("web")
	req.Config.Linux = &runtime.LinuxPodSandboxConfig{CgroupParent: "/kubepods/pod1"}
	id, err := m.RunPod(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	w.setFail("UpdateCgroup", errors.New("no"))
	res := &runtime.LinuxContainerResources{CpuShares: 300, HugepageLimits: []*runtime.HugepageLimit{{PageSize: "2MB", Limit: 1 << 21}}}
	if err := m.UpdatePod(t.Context(), id, nil, res); err != nil {
		t.Fatal(err)
	}
	pod, _ := m.Pod(id)
	if w.count("UpdateCgroup") != 0 || !proto.Equal(pod.Config.Linux.Resources, res) {
		t.Errorf("%v", pod.Config.Linux.Resources)
	}
	more := &runtime.LinuxContainerResources{HugepageLimits: []*runtime.HugepageLimit{{PageSize: "2MB"}, {PageSize: "1GB", Limit: 1 << 30}}}
	if err := m.UpdatePod(t.Context(), id, nil, more); err != nil {
		t.Fatal(err)
	}
	pod, _ = m.Pod(id)
	if got := pod.Config.Linux.Resources; len(got.HugepageLimits) != 2 || got.HugepageLimits[0].Limit != 0 || got.CpuShares != 300 {
		t.Errorf("%v", got)
	}
	if err := m.UpdatePod(t.Context(), id, nil, &runtime.LinuxContainerResources{CpuShares: -3}); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}
