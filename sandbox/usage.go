package sandbox

import (
	"context"
	"time"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/sandbox/collector"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
)

const (
	// usageAge is how old figures may be: several calls of one round of
	// kubelet's share a reading.
	usageAge = time.Second
	// usagePatience bounds a reading of a cgroup.
	usagePatience = time.Second
	// usageKeep is how long figures stand in for those of a cgroup that hangs.
	usageKeep = time.Minute
	// layerAge is usageAge for the size of a writable layer. Its files are
	// counted in the background, for at most layerPatience, and 1/layerRest
	// of the time; the first counting is waited for as long as layerWait.
	layerAge, layerPatience, layerWait = 10 * time.Second, time.Minute, time.Second
	layerRest                          = 20
)

// reading is what was read of a pod or container at stats.At.
type reading struct {
	stats *cgroups.Stats
	// rate is CPU time in nanoseconds a second since the former reading;
	// zero in the first.
	rate uint64
	// links are the interfaces of a pod with a network of its own.
	links []namespace.Link
}

// layerSize is the size of a writable layer.
type layerSize struct {
	at            time.Time
	bytes, inodes uint64
}

// usages keeps what was read of pods, containers and their layers.
type usages struct {
	groups *collector.Collector[reading]
	layers *collector.Collector[layerSize]
	// details are read for metrics alone.
	details *collector.Collector[ContainerDetail]
}

func newUsages() usages {
	return usages{
		groups:  collector.New[reading](collector.Config{Age: usageAge, Patience: usagePatience, Keep: usageKeep}),
		details: collector.New[ContainerDetail](collector.Config{Age: usageAge, Patience: usagePatience, Keep: usageKeep}),
		layers: collector.New[layerSize](collector.Config{
			Age: layerAge, Patience: layerPatience, Wait: layerWait, Keep: time.Hour,
			Readers: 2, Behind: true, Rest: layerRest,
		}),
	}
}

func (u usages) close() {
	u.groups.Close()
	u.layers.Close()
	u.details.Close()
}

// drop forgets a pod or container.
func (u usages) drop(id string) {
	u.groups.Drop(id)
	u.layers.Drop(id)
	u.details.Drop(id)
}

// keep forgets all pods and containers but those that are known.
func (u usages) keep(known map[string]bool) {
	u.groups.Keep(known)
	u.layers.Keep(known)
	u.details.Keep(known)
}

// noUsage is that of what does not run.
func noUsage() reading { return reading{stats: &cgroups.Stats{At: now()}} }

// containerUsage reads a container's cgroup.
func (m *Manager) containerUsage(ctx context.Context, s *containerState) (reading, error) {
	if !s.State.alive() {
		return noUsage(), nil
	}
	job := m.containerJob(s)
	return m.usage.groups.Get(ctx, job.Key, job.Read)
}

func (m *Manager) containerJob(s *containerState) collector.Job[reading] {
	path := s.CgroupPath
	return collector.Job[reading]{Key: s.ID, Read: func(ctx context.Context, before reading, _ time.Time) (reading, error) {
		stats, err := m.deps.Cgroups.ContainerUsage(ctx, path)
		if err != nil {
			return reading{}, err
		}
		return newReading(before, stats), nil
	}}
}

// podUsage reads a pod's cgroup and network.
func (m *Manager) podUsage(ctx context.Context, s *podState) (reading, error) {
	job := m.podJob(s)
	return m.usage.groups.Get(ctx, job.Key, job.Read)
}

func (m *Manager) podJob(s *podState) collector.Job[reading] {
	path, netns := s.CgroupPath, s.NetNS
	return collector.Job[reading]{Key: s.ID, Read: func(ctx context.Context, before reading, _ time.Time) (reading, error) {
		stats, err := m.deps.Cgroups.PodUsage(ctx, path)
		if err != nil {
			return reading{}, err
		}
		r := newReading(before, stats)
		if netns != "" {
			r.links, err = m.ns.Links(ctx, netns)
		}
		return r, err
	}}
}

// ReadAhead reads what ContainerStats of these containers, and PodStats of these
// pods, will ask for next. IDs that are not known are passed over.
func (m *Manager) ReadAhead(ctx context.Context, podIDs, containerIDs []string) {
	var jobs []collector.Job[reading]
	add := func(c *container) {
		if s := c.get(); s.State.alive() {
			jobs = append(jobs, m.containerJob(s))
		}
	}
	for _, id := range podIDs {
		p, err := m.findPod(id)
		if err != nil || p.get().State != PodReady {
			continue
		}
		jobs = append(jobs, m.podJob(p.get()))
		for _, c := range m.children(p) {
			add(c)
		}
	}
	for _, id := range containerIDs {
		if c, err := m.findContainer(id); err == nil {
			add(c)
		}
	}
	m.usage.groups.Ahead(ctx, jobs)
}

// newReading is that of figures which were read after before.
func newReading(before reading, stats *cgroups.Stats) reading {
	return reading{stats: stats, rate: cpuRate(before.stats, stats)}
}

// cpuRate gives the CPU use between two readings in nanoseconds a second. A
// counter that went back is that of a new cgroup.
func cpuRate(before, after *cgroups.Stats) uint64 {
	if before == nil || before.CPU == nil || after.CPU == nil || after.CPU.UsageNanos < before.CPU.UsageNanos {
		return 0
	}
	elapsed := after.At.Sub(before.At)
	if elapsed <= 0 {
		return 0
	}
	return uint64(float64(after.CPU.UsageNanos-before.CPU.UsageNanos) / elapsed.Seconds())
}

// layer gives the size of a writable layer; zero now where it is not known.
func (m *Manager) layer(ctx context.Context, s *containerState) layerSize {
	key := s.SnapshotKey
	if key == "" {
		return layerSize{at: now()}
	}
	size, err := m.usage.layers.Get(ctx, s.ID, func(ctx context.Context, _ layerSize, _ time.Time) (layerSize, error) {
		at := now()
		usage, err := m.deps.Snapshots.Usage(ctx, key)
		return layerSize{at: at, bytes: uint64(max(0, usage.Size)), inodes: uint64(max(0, usage.Inodes))}, err
	})
	if err != nil {
		m.log.WithError(err).Debugf("size of container %s", s.ID)
		return layerSize{at: now()}
	}
	return size
}
