package sandbox

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
	"github.com/nodeagent/nodeagent/sandbox/record"
	"github.com/nodeagent/nodeagent/supervisor"
)

// recover brings memory, records, supervisor and host together again. It
// assumes that the agent may have been killed between any two instructions,
// and that the machine may have been started anew since:
//
//   - a pod whose record is an intent was never told to anybody: it is undone;
//   - a container without a record likewise: its snapshot, folder and process
//     are garbage;
//   - a container that the supervisor runs runs, whatever its record says;
//   - one that it does not know, though the record says it runs, has ended
//     without anybody seeing how;
//   - after a reboot no process, mount or namespace of before is left.
//
// Nothing of a single pod or container makes it fail: it is logged, and tried
// again by whoever stops or removes it.
func (m *Manager) recover(ctx context.Context) error {
	if err := m.loadPods(); err != nil {
		return err
	}
	if err := m.loadContainers(); err != nil {
		return err
	}
	orphans := m.findOrphans(ctx)
	connectCtx, cancel := context.WithTimeout(ctx, m.cfg.RecoveryTimeout)
	events, err := m.connect(connectCtx)
	cancel()
	if err != nil {
		m.log.WithError(err).Warn("no supervisor; containers keep the state they were last known in")
	} else {
		m.adopt(ctx)
	}
	m.thawAll(ctx)
	m.warn(errors.Join(m.clearCheckpoints(), m.clearRestores()), "remove what a checkpoint left")
	m.recoverPods(ctx)
	m.removeOrphans(ctx, orphans)
	m.collectNetwork(ctx)
	done := make(chan struct{})
	m.linkDone = done
	go func() {
		defer close(done)
		m.watch(events)
	}()
	return nil
}

// warn logs what concerns one object and stops nothing.
func (m *Manager) warn(err error, format string, args ...any) {
	if err != nil {
		m.log.WithError(err).Warnf(format, args...)
	}
}

// setAside puts a record away that cannot be used.
func (m *Manager) setAside(store *record.Store, id string, cause error) {
	path, err := store.SetAside(id)
	m.warn(errors.Join(cause, err), "record %s cannot be used, and is now %s", id, path)
}

func (m *Manager) loadPods() error {
	ids, err := m.podRecords.IDs()
	if err != nil {
		return err
	}
	forEach(ids, func(id string) {
		s, err := m.getPod(id)
		if err != nil {
			m.setAside(m.podRecords, id, err)
			return
		}
		m.addPod(s)
	})
	return nil
}

func (m *Manager) loadContainers() error {
	ids, err := m.containerRecords.IDs()
	if err != nil {
		return err
	}
	forEach(ids, func(id string) {
		s, err := m.getContainer(id)
		if err != nil {
			m.setAside(m.containerRecords, id, err)
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		p := m.pods[s.PodID]
		if p == nil {
			// Its pod's record is lost; what it has is found as garbage.
			m.warn(m.containerRecords.Delete(id), "delete container %s of lost pod %s", id, s.PodID)
			return
		}
		c := &container{pod: p, busy: newGate()}
		c.state.Store(s)
		m.containers[id] = c
		p.children[id] = c
	})
	return nil
}

// adopt brings the containers and what the supervisor has together.
func (m *Manager) adopt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.RecoveryTimeout)
	defer cancel()
	sup, err := m.supervisor()
	if err != nil {
		return
	}
	states, err := sup.List(ctx)
	if err != nil {
		m.warn(err, "list the supervisor's containers")
		return
	}
	known := map[string]supervisor.State{}
	for _, s := range states {
		known[s.ID] = s
	}
	m.mu.RLock()
	var mine []*container
	for _, c := range m.containers {
		mine = append(mine, c)
	}
	m.mu.RUnlock()
	forEach(mine, func(c *container) {
		m.warn(m.adoptContainer(ctx, c, known), "recover container %s", c.get().ID)
	})
	var strays []string
	for id := range known {
		if _, err := m.findContainer(id); err != nil {
			strays = append(strays, id)
		}
	}
	forEach(strays, func(id string) {
		_, err := sup.Delete(ctx, id)
		m.warn(err, "delete stray container %s", id)
	})
}

// adoptContainer takes up one container where it is.
func (m *Manager) adoptContainer(ctx context.Context, c *container, known map[string]supervisor.State) error {
	s := c.get()
	have, ok := known[s.ID]
	rebooted := s.BootID != m.bootID
	switch {
	case s.State == ContainerExited:
		// It may have been killed before it cleaned up.
		if ok {
			return m.exited(ctx, c, supervisor.Exit{})
		}
		return m.unmountContainer(s.ID)
	case rebooted && !ok:
		return m.exited(ctx, c, supervisor.Exit{Code: unknownCode, Reason: reasonUnknown})
	case s.State == ContainerCreated && !ok:
		return nil
	case s.State == ContainerCreated:
		// It was started, and the agent killed before it wrote so down.
		err := m.changeContainer(c, func(s *containerState) {
			s.State, s.PID, s.StartedAt = ContainerRunning, have.PID, have.StartedAt.Round(0)
		})
		if err != nil {
			return err
		}
	}
	if err := m.compare(ctx, c, known); err != nil {
		return err
	}
	return errors.Join(m.comparePause(c, have), m.endUpdate(ctx, c))
}

// comparePause puts a record right that was not written when a person paused
// or resumed the container. Those frozen by a checkpoint are thawed later.
func (m *Manager) comparePause(c *container, have supervisor.State) error {
	want := map[supervisor.Status]ContainerState{
		supervisor.StatusRunning: ContainerRunning, supervisor.StatusPaused: ContainerPaused,
	}[have.Status]
	s := c.get()
	if want == "" || s.Frozen || s.State == want || s.State == ContainerExited {
		return nil
	}
	return m.changeContainer(c, func(s *containerState) { s.State = want })
}

// recoverPods undoes pods that were being made, and goes on stopping those
// that were being stopped or did not survive a reboot.
func (m *Manager) recoverPods(ctx context.Context) {
	m.mu.RLock()
	var all []*pod
	for _, p := range m.pods {
		all = append(all, p)
	}
	m.mu.RUnlock()
	forEach(all, func(p *pod) {
		ctx, cancel := context.WithTimeout(ctx, m.cfg.RecoveryTimeout)
		defer cancel()
		m.recoverPod(ctx, p)
	})
}

func (m *Manager) recoverPod(ctx context.Context, p *pod) {
	s := p.get()
	switch {
	case s.State == podMaking:
		m.dropPod(s)
		if err := m.clearPod(ctx, s); err != nil {
			m.warn(err, "undo pod %s", s.ID)
			m.background("undo pod "+s.ID, func(ctx context.Context) error { return m.clearPod(ctx, s) })
		}
	case s.State == PodStopping:
	case s.State == PodReady && !m.alive(s):
		m.warn(m.changePod(p, func(s *podState) { s.State = PodStopping }), "pod %s is gone", s.ID)
	}
	if p.get().State != PodStopping {
		m.warn(m.endPodUpdate(ctx, p), "go back to the recorded limits")
		return
	}
	if err := m.stopPodJoined(ctx, p); err != nil {
		m.warn(err, "go on stopping")
	}
}

// alive says whether the namespaces of a ready pod are still there.
func (m *Manager) alive(s *podState) bool {
	if s.BootID != m.bootID {
		return false
	}
	for _, k := range s.Own {
		if !m.ns.Pinned(m.nsPath(s.ID, k)) {
			return false
		}
	}
	return len(s.UIDs) == 0 || m.ns.Pinned(m.nsPath(s.ID, namespace.User))
}

// collectNetwork lets the network give back what belongs to no pod.
func (m *Manager) collectNetwork(ctx context.Context) {
	m.mu.RLock()
	var keep []network.Attachment
	for _, p := range m.pods {
		if s := p.get(); s.NetNS != "" && !s.NetworkGone {
			keep = append(keep, s.attachment())
		}
	}
	m.mu.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, m.cfg.RecoveryTimeout)
	defer cancel()
	m.warn(m.deps.Network.GC(ctx, keep), "collect garbage of the network")
}

// orphans are what belongs to no record.
type orphans struct {
	pods, containers []string
	snapshots        []string
}

// findOrphans looks at the state folders and at the snapshots before anything
// new is made.
func (m *Manager) findOrphans(ctx context.Context) orphans {
	var o orphans
	for i, dir := range m.stateDirs() {
		entries, err := os.ReadDir(dir)
		m.warn(err, "look for garbage in %s", dir)
		for _, e := range entries {
			switch i {
			case 0:
				if _, known := m.pods[e.Name()]; !known {
					o.pods = append(o.pods, e.Name())
				}
			default:
				if _, known := m.containers[e.Name()]; !known {
					o.containers = append(o.containers, e.Name())
				}
			}
		}
	}
	m.warn(m.findOrphanSnapshots(ctx, &o), "look for snapshots without a container")
	return o
}

// removeOrphans removes what was found, after the supervisor has deleted the
// processes that may use it.
func (m *Manager) removeOrphans(ctx context.Context, o orphans) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		forEach(o.pods, func(id string) { m.warn(m.clearOrphan(ctx, id), "remove garbage of pod %s", id) })
	})
	forEach(o.containers, func(id string) {
		m.warn(m.removeContainerDir(id), "remove garbage of container %s", id)
	})
	for _, key := range o.snapshots {
		err := ignoreNotFound(m.deps.Snapshots.Remove(ctx, key))
		m.warn(err, "remove snapshot %s without a container", key)
	}
	if n := len(o.pods) + len(o.containers) + len(o.snapshots); n > 0 {
		m.log.Info(fmt.Sprintf("removed %d things that belonged to nothing", n))
	}
}

// clearOrphan takes away what a pod without a record has, as far as its ID
// tells: init, folder, and the cgroup in its usual place. The network is left
// to its own garbage collection.
func (m *Manager) clearOrphan(ctx context.Context, id string) error {
	if !isID(id) {
		return m.removePodDir(id)
	}
	s := &podState{Pod: Pod{ID: id, Config: &runtime.PodSandboxConfig{}}}
	if err := m.placePod(s); err != nil {
		return err
	}
	return errors.Join(m.killPodInit(ctx, s), m.removePodDir(id), m.releaseCgroup(ctx, s))
}

// isID knows what newID makes.
func isID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == idBytes
}
