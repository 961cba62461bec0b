package sandbox

import (
	"context"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// findOrphanSnapshots finds those that name a container that is not there.
func (m *Manager) findOrphanSnapshots(ctx context.Context, o *orphans) error {
	return m.deps.Snapshots.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		id := info.Labels[labelContainer]
		if id == "" {
			return nil
		}
		if _, known := m.containers[id]; !known {
			o.snapshots = append(o.snapshots, info.Name)
		}
		return nil
	})
}
