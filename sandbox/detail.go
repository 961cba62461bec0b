package sandbox

import (
	"context"
	"fmt"
	"time"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
	"github.com/nodeagent/nodeagent/sandbox/procfs"
)

// ContainerDetail is all that is known of what a running container uses.
type ContainerDetail struct {
	// Cgroup is a whole reading. Its time is that of all figures.
	Cgroup *cgroups.Stats
	// Processes is how many there are, Open what they have open.
	Processes uint64
	Open      procfs.Open
	// MaxOpenFiles is the soft limit of the first process; zero when it is
	// not known.
	MaxOpenFiles uint64
	// Disks are the devices of Cgroup.IO, in its order.
	Disks []string
	// Filesystem is the one writable layers are in, LayerBytes the size of
	// this container's.
	Filesystem procfs.Filesystem
	LayerBytes uint64
}

// PodDetail is what belongs to a pod as a whole.
type PodDetail struct {
	At time.Time
	// Links are the interfaces of the pod, without its loopback; none for a
	// pod on the host's network.
	Links []namespace.Link
}

// OOMKilled tells whether the kernel has killed a process of a running container for want of memory since its start. Of
// one that does not run, its Reason tells.
func (m *Manager) OOMKilled(containerID string) bool {
	c, err := m.findContainer(containerID)
	if err != nil || c.get().State == ContainerExited {
		return false
	}
	n, err := m.deps.Cgroups.OOMKills(c.get().CgroupPath)
	return err == nil && n > 0
}

// ContainerDetail reads all that a container uses. One that does not run is
// errdefs.ErrNotFound.
func (m *Manager) ContainerDetail(ctx context.Context, containerID string) (*ContainerDetail, error) {
	c, err := m.findContainer(containerID)
	if err != nil {
		return nil, fmt.Errorf("container metrics: %w", err)
	}
	s := c.get()
	d, err := m.usage.details.Get(ctx, s.ID, func(ctx context.Context, _ ContainerDetail, _ time.Time) (ContainerDetail, error) {
		return m.readDetail(ctx, s)
	})
	if err != nil {
		return nil, fmt.Errorf("metrics of container %s: %w", s.ID, err)
	}
	d.LayerBytes = m.layer(ctx, s).bytes
	return &d, nil
}

func (m *Manager) readDetail(ctx context.Context, s *containerState) (ContainerDetail, error) {
	var d ContainerDetail
	var err error
	if d.Cgroup, err = m.deps.Cgroups.Stats(ctx, s.CgroupPath); err != nil {
		return d, err
	}
	pids, err := m.deps.Cgroups.Procs(s.CgroupPath)
	if err != nil {
		return d, err
	}
	d.Processes = uint64(len(pids))
	if d.Open, err = procfs.Count(ctx, pids); err != nil {
		return d, err
	}
	d.MaxOpenFiles, _ = procfs.MaxOpenFiles(s.PID)
	for _, io := range d.Cgroup.IO {
		d.Disks = append(d.Disks, procfs.Disk(io.Major, io.Minor))
	}
	d.Filesystem, err = procfs.StatFilesystem(m.cfg.Root)
	return d, err
}

// PodDetail reads what belongs to a pod as a whole.
func (m *Manager) PodDetail(ctx context.Context, podID string) (*PodDetail, error) {
	p, err := m.findPod(podID)
	if err != nil {
		return nil, fmt.Errorf("pod metrics: %w", err)
	}
	s := p.get()
	u, err := m.podUsage(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("metrics of pod %s: %w", s.ID, err)
	}
	d := &PodDetail{At: u.stats.At}
	for _, link := range u.links {
		if !link.Loopback {
			d.Links = append(d.Links, link)
		}
	}
	return d, nil
}
