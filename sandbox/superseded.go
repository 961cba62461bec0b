package sandbox

import (
	"cmp"
	"context"
	"slices"
)

const (
	// maxDead is how many exited containers there may be before those that
	// nobody needs are removed: far more than kubelet leaves, and far fewer
	// than make its lists longer than it reads.
	maxDead = 4000
	// keptDead is how many of the latest containers of a name stay; kubelet
	// looks at the one that runs and the one before.
	keptDead = 2
)

// removeSuperseded removes exited containers for which there are later ones of
// the same name, when there are more than limit. It is for a node whose kubelet
// does not do it, as one cannot whose lists have become too long.
func (m *Manager) removeSuperseded(ctx context.Context, limit int) {
	dead, superseded := m.superseded()
	if dead <= limit {
		return
	}
	removed := 0
	for _, c := range superseded {
		if dead-removed <= limit || ctx.Err() != nil {
			break
		}
		if err := m.removeContainerJoined(ctx, c); err != nil {
			m.warn(err, "remove a container for which there are later ones")
			continue
		}
		removed++
	}
	m.log.Warnf("there were %d exited containers, more than %d; %d are removed for which there are later ones", dead, limit, removed)
}

// superseded counts the exited containers made over CRI, and lists those of
// them that are not among the latest of their name, the oldest first.
func (m *Manager) superseded() (dead int, list []*container) {
	type name struct{ pod, container string }
	m.mu.RLock()
	defer m.mu.RUnlock()
	byName := map[name][]*container{}
	for _, c := range m.containers {
		s := c.get()
		if s.Owner != OwnerCRI {
			continue
		}
		if s.State == ContainerExited {
			dead++
		}
		n := name{s.PodID, s.Config.GetMetadata().GetName()}
		byName[n] = append(byName[n], c)
	}
	older := func(a, b *container) int {
		x, y := a.get(), b.get()
		return cmp.Or(cmp.Compare(x.Config.GetMetadata().GetAttempt(), y.Config.GetMetadata().GetAttempt()), x.CreatedAt.Compare(y.CreatedAt))
	}
	for _, all := range byName {
		if len(all) <= keptDead {
			continue
		}
		slices.SortFunc(all, older)
		for _, c := range all[:len(all)-keptDead] {
			if c.get().State == ContainerExited {
				list = append(list, c)
			}
		}
	}
	slices.SortFunc(list, func(a, b *container) int { return a.get().FinishedAt.Compare(b.get().FinishedAt) })
	return dead, list
}
