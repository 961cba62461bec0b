package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/sys/mountinfo"

	"github.com/nodeagent/nodeagent/network"
)

// OrphanKind says what an Orphan is.
type OrphanKind string

// The kinds of orphans.
const (
	// OrphanPod and OrphanContainer are folders in State, with the mounts and
	// namespaces in them.
	OrphanPod       OrphanKind = "folder of a pod"
	OrphanContainer OrphanKind = "folder of a container"
	OrphanSnapshot  OrphanKind = "snapshot"
	OrphanNetwork   OrphanKind = "network of a pod"
	OrphanCgroup    OrphanKind = "cgroup of a pod"
)

// Orphan is something that was made for a pod or container that is not there.
type Orphan struct {
	Kind OrphanKind
	// ID is the pod's or container's, for a snapshot its key.
	ID string
	// Path is where it is, as a person would look for it.
	Path string
}

// orphanPause is how far apart searches for orphans are.
const orphanPause = time.Hour

// Orphans finds what belongs to no pod and no container, and to no operation
// under way.
func (m *Manager) Orphans(ctx context.Context) ([]Orphan, error) {
	// What is there is listed first, and what it may belong to after: so
	// something that is being made is never taken for an orphan.
	candidates, err := m.candidates(ctx)
	known := m.knownIDs()
	found := slices.DeleteFunc(candidates, func(o Orphan) bool { return known[o.ID] })
	// What ended in between took its things with it.
	found = slices.DeleteFunc(found, func(o Orphan) bool { return !m.stillThere(ctx, o) })
	return found, err
}

// candidates are all things that belong to some pod or container.
func (m *Manager) candidates(ctx context.Context) ([]Orphan, error) {
	var found []Orphan
	var errs []error
	for i, dir := range m.stateDirs() {
		entries, err := os.ReadDir(dir)
		errs = append(errs, err)
		for _, e := range entries {
			kind := []OrphanKind{OrphanPod, OrphanContainer}[i]
			found = append(found, Orphan{Kind: kind, ID: e.Name(), Path: filepath.Join(dir, e.Name())})
		}
	}
	errs = append(errs, m.deps.Snapshots.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if id := info.Labels[labelContainer]; id != "" {
			found = append(found, Orphan{Kind: OrphanSnapshot, ID: id, Path: info.Name})
		}
		return nil
	}))
	wired, err := m.deps.Network.Wired()
	errs = append(errs, err)
	for _, id := range wired {
		found = append(found, Orphan{Kind: OrphanNetwork, ID: id, Path: id})
	}
	for _, name := range m.deps.Cgroups.Children(m.podsCgroup()) {
		dir := path.Join(m.podsCgroup(), name)
		id := name[strings.LastIndexByte(name, '-')+1:]
		if id = strings.TrimSuffix(id, ".slice"); isID(id) && m.ownCgroup(m.podsCgroup(), id) == dir {
			found = append(found, Orphan{Kind: OrphanCgroup, ID: id, Path: dir})
		}
	}
	return found, errors.Join(errs...)
}

// knownIDs are those of all that is there or being made, or being undone.
func (m *Manager) knownIDs() map[string]bool {
	known := map[string]bool{}
	m.opsMu.Lock()
	for _, op := range m.ops {
		s := op.state()
		known[s.PodID], known[s.ContainerID] = true, true
	}
	m.opsMu.Unlock()
	m.mu.RLock()
	defer m.mu.RUnlock()
	for id := range m.pods {
		known[id] = true
	}
	for id := range m.containers {
		known[id] = true
	}
	return known
}

// stillThere looks again.
func (m *Manager) stillThere(ctx context.Context, o Orphan) bool {
	switch o.Kind {
	case OrphanPod, OrphanContainer:
		_, err := os.Lstat(o.Path)
		return err == nil
	case OrphanSnapshot:
		_, err := m.deps.Snapshots.Mounts(ctx, o.Path)
		return err == nil
	case OrphanCgroup:
		return m.deps.Cgroups.Exists(o.Path)
	case OrphanNetwork:
		wired, err := m.deps.Network.Wired()
		return err == nil && slices.Contains(wired, o.ID)
	}
	return false
}

// RemoveOrphan takes an orphan away. One that is gone, or has found an owner,
// is left alone.
func (m *Manager) RemoveOrphan(ctx context.Context, o Orphan) error {
	if m.knownIDs()[o.ID] {
		return nil
	}
	if err := m.removeOrphan(ctx, o); err != nil {
		return fmt.Errorf("remove %s %s: %w", o.Kind, o.ID, err)
	}
	return nil
}

func (m *Manager) removeOrphan(ctx context.Context, o Orphan) error {
	switch o.Kind {
	case OrphanPod:
		if err := m.unmountAll(o.Path); err != nil {
			return err
		}
		return m.clearOrphan(ctx, o.ID)
	case OrphanContainer:
		if sup, err := m.supervisor(); err == nil && isID(o.ID) {
			if _, err := sup.Delete(ctx, o.ID); err != nil {
				return err
			}
		}
		if err := m.unmountAll(o.Path); err != nil {
			return err
		}
		return m.removeContainerDir(o.ID)
	case OrphanSnapshot:
		return ignoreNotFound(m.deps.Snapshots.Remove(ctx, o.Path))
	case OrphanNetwork:
		return m.deps.Network.Del(ctx, network.Attachment{PodID: o.ID})
	case OrphanCgroup:
		return errors.Join(m.deps.Cgroups.Kill(ctx, o.Path), m.deps.Cgroups.Remove(ctx, o.Path))
	}
	return nil
}

// unmountAll unmounts whatever is mounted in a folder, the deepest first, so
// that nothing behind a mount is removed with the folder.
func (m *Manager) unmountAll(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err
	}
	slices.SortFunc(mounts, func(a, b *mountinfo.Info) int {
		return strings.Count(b.Mountpoint, "/") - strings.Count(a.Mountpoint, "/")
	})
	for _, mount := range mounts {
		if err := m.ns.Unmount(mount.Mountpoint); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes the dead that are too many at once, for kubelet may be unable
// to list them, and them and orphans every hour until the Manager is closed.
func (m *Manager) sweep() {
	tick := time.NewTicker(orphanPause)
	defer tick.Stop()
	for {
		m.removeSuperseded(m.ctx, maxDead)
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		}
		m.sweepOrphans()
		m.usage.keep(m.knownIDs())
	}
}

func (m *Manager) sweepOrphans() {
	ctx, cancel := context.WithTimeout(m.ctx, m.cfg.OperationTimeout)
	defer cancel()
	found, err := m.Orphans(ctx)
	m.warn(err, "look for what belongs to nothing")
	for _, o := range found {
		m.log.Warnf("%s %s belongs to nothing and is removed", o.Kind, o.ID)
		m.warn(m.RemoveOrphan(ctx, o), "remove what belongs to nothing")
	}
}
