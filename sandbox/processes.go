package sandbox

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// Processes lists the processes of a running container by their numbers on
// the host, in no order.
func (m *Manager) Processes(containerID string) ([]int, error) {
	c, err := m.findContainer(containerID)
	if err != nil {
		return nil, fmt.Errorf("processes of container: %w", err)
	}
	s := c.get()
	if !s.State.alive() {
		return nil, fmt.Errorf("processes of container %s: it is %s: %w", s.ID, s.State, errdefs.ErrFailedPrecondition)
	}
	pids, err := m.deps.Cgroups.Procs(s.CgroupPath)
	if err != nil {
		return nil, fmt.Errorf("processes of container %s: %w", s.ID, err)
	}
	return pids, nil
}
