package sandbox

import (
	"context"
	"fmt"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/cgroups"
)

// ContainerStats gives the container's use of resources; one that does not
// run has used none.
func (m *Manager) ContainerStats(ctx context.Context, containerID string) (*runtime.ContainerStats, error) {
	c, err := m.findContainer(containerID)
	if err != nil {
		return nil, fmt.Errorf("container statistics: %w", err)
	}
	return m.containerStats(ctx, c)
}

func (m *Manager) containerStats(ctx context.Context, c *container) (*runtime.ContainerStats, error) {
	s := c.get()
	out := &runtime.ContainerStats{
		Attributes: &runtime.ContainerAttributes{
			Id: s.ID, Metadata: s.Config.GetMetadata(), Labels: s.Config.GetLabels(), Annotations: s.Config.GetAnnotations(),
		},
		WritableLayer: m.layerUsage(ctx, s),
	}
	u, err := m.containerUsage(ctx, s)
	if err != nil {
		// It may have ended just now.
		if c.get().State == s.State {
			return nil, fmt.Errorf("statistics of container %s: %w", s.ID, err)
		}
		u = noUsage()
	}
	out.Cpu, out.Memory, out.Swap = cpuUsage(u), memoryUsage(u.stats), swapUsage(u.stats)
	out.Io = ioUsage(u.stats)
	return out, nil
}

func number(n uint64) *runtime.UInt64Value { return &runtime.UInt64Value{Value: n} }

// layerUsage gives the size of the writable layer, as far as it is known.
func (m *Manager) layerUsage(ctx context.Context, s *containerState) *runtime.FilesystemUsage {
	layer := m.layer(ctx, s)
	return &runtime.FilesystemUsage{
		Timestamp: layer.at.UnixNano(), FsId: &runtime.FilesystemIdentifier{Mountpoint: m.cfg.Root},
		UsedBytes: number(layer.bytes), InodesUsed: number(layer.inodes),
	}
}

func cpuUsage(u reading) *runtime.CpuUsage {
	out := &runtime.CpuUsage{Timestamp: u.stats.At.UnixNano(), UsageCoreNanoSeconds: number(0), UsageNanoCores: number(0)}
	if u.stats.CPU != nil {
		out.UsageCoreNanoSeconds = number(u.stats.CPU.UsageNanos)
		out.UsageNanoCores = number(u.rate)
	}
	out.Psi = pressure(u.stats, "cpu")
	return out
}

func memoryUsage(s *cgroups.Stats) *runtime.MemoryUsage {
	out := &runtime.MemoryUsage{Timestamp: s.At.UnixNano(), WorkingSetBytes: number(0)}
	if m := s.Memory; m != nil {
		out.WorkingSetBytes, out.UsageBytes, out.RssBytes = number(m.WorkingSet), number(m.Usage), number(m.RSS)
		out.PageFaults, out.MajorPageFaults = number(m.PageFaults), number(m.MajorPageFaults)
		out.AvailableBytes = number(0)
		if m.Limit > m.WorkingSet && m.Limit < 1<<62 {
			out.AvailableBytes = number(m.Limit - m.WorkingSet)
		}
	}
	out.Psi = pressure(s, "memory")
	return out
}

func swapUsage(s *cgroups.Stats) *runtime.SwapUsage {
	out := &runtime.SwapUsage{Timestamp: s.At.UnixNano()}
	if m := s.Memory; m != nil {
		out.SwapUsageBytes = number(m.SwapUsage)
		if m.SwapLimit > m.SwapUsage && m.SwapLimit < 1<<62 {
			out.SwapAvailableBytes = number(m.SwapLimit - m.SwapUsage)
		}
	}
	return out
}

func ioUsage(s *cgroups.Stats) *runtime.IoUsage {
	psi := pressure(s, "io")
	if psi == nil {
		return nil
	}
	return &runtime.IoUsage{Timestamp: s.At.UnixNano(), Psi: psi}
}

// pressure gives the stall figures of a resource; nil where there are none.
func pressure(s *cgroups.Stats, resource string) *runtime.PsiStats {
	p, ok := s.PSI[resource]
	if !ok {
		return nil
	}
	line := func(l cgroups.PSILine) *runtime.PsiData {
		return &runtime.PsiData{Total: l.TotalMicros, Avg10: l.Avg10, Avg60: l.Avg60, Avg300: l.Avg300}
	}
	return &runtime.PsiStats{Full: line(p.Full), Some: line(p.Some)}
}

// PodStats gives the use of resources of a pod and its containers.
func (m *Manager) PodStats(ctx context.Context, podID string) (*runtime.PodSandboxStats, error) {
	p, err := m.findPod(podID)
	if err != nil {
		return nil, fmt.Errorf("pod statistics: %w", err)
	}
	s := p.get()
	out := &runtime.PodSandboxStats{
		Attributes: &runtime.PodSandboxAttributes{
			Id: s.ID, Metadata: s.Config.GetMetadata(), Labels: s.Config.GetLabels(), Annotations: s.Config.GetAnnotations(),
		},
		Linux: &runtime.LinuxPodSandboxStats{},
	}
	u := noUsage()
	if s.State == PodReady {
		if u, err = m.podUsage(ctx, s); err != nil && p.get().State == PodReady {
			return nil, fmt.Errorf("statistics of pod %s: %w", s.ID, err)
		}
		if err != nil {
			u = noUsage()
		}
	}
	l := out.Linux
	l.Cpu, l.Memory, l.Io = cpuUsage(u), memoryUsage(u.stats), ioUsage(u.stats)
	l.Network = networkUsage(s, u)
	l.Process = &runtime.ProcessUsage{Timestamp: u.stats.At.UnixNano(), ProcessCount: number(0)}
	if u.stats.Pids != nil {
		l.Process.ProcessCount = number(u.stats.Pids.Current)
	}
	for _, c := range m.children(p) {
		if !c.get().State.alive() {
			continue
		}
		cs, err := m.containerStats(ctx, c)
		if err != nil {
			// The others count.
			m.log.WithError(err).Debugf("statistics of pod %s", s.ID)
			continue
		}
		l.Containers = append(l.Containers, cs)
	}
	return out, nil
}

// networkUsage gives the counters of the pod's interfaces; nil for a pod on
// the host's network.
func networkUsage(s *podState, u reading) *runtime.NetworkUsage {
	if s.NetNS == "" {
		return nil
	}
	out := &runtime.NetworkUsage{Timestamp: u.stats.At.UnixNano()}
	for _, link := range u.links {
		usage := &runtime.NetworkInterfaceUsage{
			Name: link.Name, RxBytes: number(link.Rx.Bytes), RxErrors: number(link.Rx.Errors),
			TxBytes: number(link.Tx.Bytes), TxErrors: number(link.Tx.Errors),
		}
		switch {
		case link.Loopback:
		case s.Network != nil && link.Name == s.Network.Interface:
			out.DefaultInterface = usage
		default:
			out.Interfaces = append(out.Interfaces, usage)
		}
	}
	return out
}
