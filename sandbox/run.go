package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
	"github.com/nodeagent/nodeagent/sandbox/spec"
	"github.com/nodeagent/nodeagent/supervisor"
)

// RunPod makes a pod and returns when it is ready. Namespace, name, UID and
// attempt together are its key: the same request made again joins the one
// under way, and finds the finished pod as long as it is ready. Another request
// of this key fails with ErrAlreadyExists.
func (m *Manager) RunPod(ctx context.Context, req RunPodRequest) (string, error) {
	plan, err := m.planPod(req)
	if err != nil {
		return "", fmt.Errorf("run pod %s: %w", podTitle(req.Config.GetMetadata()), err)
	}
	key := podKey(req.Owner, req.Config.GetMetadata())
	id, err := m.join(ctx, work{
		key:  key,
		what: "run pod " + podTitle(req.Config.GetMetadata()), verb: "run pod", pod: plan.ID,
		finished: func() (string, error) {
			m.mu.RLock()
			defer m.mu.RUnlock()
			p := m.podNames[key]
			if p == nil {
				return "", nil
			}
			if s := p.get(); s.State != PodReady {
				return "", fmt.Errorf("pod %s has this name, and is %s: %w", s.ID, s.State, errdefs.ErrAlreadyExists)
			}
			return p.get().ID, nil
		},
		do: func(ctx context.Context, op *operation) (string, error) {
			return m.runPod(ctx, op, plan)
		},
	})
	if err != nil {
		return "", err
	}
	if p, err := m.findPod(id); err == nil && !samePod(&p.get().Pod, &plan.Pod) {
		return "", fmt.Errorf("run pod %s: pod %s has this name, and another configuration: %w",
			podTitle(req.Config.GetMetadata()), id, errdefs.ErrAlreadyExists)
	}
	return id, nil
}

// podRun is a pod being made. Steps that run side by side write different
// fields of the state.
type podRun struct {
	*Manager
	*podState
	// later are the sysctls of interfaces that the network step makes.
	later map[string]string
	// leaked says that an undo failed, so that the intent must stay.
	leaked bool
}

// runPod is the sequence. The first step's record is what a restarted agent
// undoes the rest by.
func (m *Manager) runPod(ctx context.Context, op *operation, plan *podState) (string, error) {
	r := &podRun{Manager: m, podState: plan}
	m.notePod(plan)
	err := undo.Sequence{Name: "run", Stage: op.at, Steps: []undo.Step{
		{Name: "intent", Do: r.writeIntent, Undo: r.dropIntent},
		{Name: "directory", Do: r.makeDirectory, Undo: r.removeDirectory},
		undo.Together("namespaces",
			undo.Step{Name: "namespaces", Do: r.pinNamespaces, Undo: r.unpinNamespaces},
			undo.Step{Name: "cgroup", Do: r.makeCgroup, Undo: r.removeCgroup},
			undo.Step{Name: "shm", Do: r.mountShm, Undo: r.unmountShm},
		),
		undo.Together("network",
			undo.Step{Name: "network", Do: r.addNetwork, Undo: r.delNetwork},
			undo.Step{Name: "init", Do: r.startInit, Undo: r.stopInit},
		),
		{Name: "files", Do: r.writeFiles},
		{Name: "record", Do: r.writeReady},
		{Name: "publish", Do: r.publishPod, Undo: r.unpublishPod},
	}}.Run(ctx)
	if err != nil {
		return "", err
	}
	return plan.ID, nil
}

// undoing notes whether an undo failed.
func (r *podRun) undoing(err error) error {
	if err != nil {
		r.leaked = true
	}
	return err
}

func (r *podRun) writeIntent(context.Context) error { return r.putPod(r.podState) }

// dropIntent is the last undo. What others could not undo is tried again in
// the background, with the intent left in place until then.
func (r *podRun) dropIntent(context.Context) error {
	if !r.leaked {
		return r.podRecords.Delete(r.ID)
	}
	r.background("undo pod "+r.ID, func(ctx context.Context) error {
		return r.clearPod(ctx, r.podState)
	})
	return nil
}

func (r *podRun) makeDirectory(context.Context) error { return os.Mkdir(r.podDir(r.ID), 0o700) }

func (r *podRun) removeDirectory(context.Context) error {
	return r.undoing(r.removePodDir(r.ID))
}

func (r *podRun) pinNamespaces(ctx context.Context) (err error) {
	if len(r.Own) == 0 && len(r.UIDs) == 0 {
		return nil
	}
	r.later, err = r.ns.Pin(ctx, namespace.Request{
		Dir: r.nsDir(r.ID), Kinds: r.Own, UIDs: r.UIDs, GIDs: r.GIDs,
		Hostname: r.Hostname, Domainname: r.Domainname, Sysctls: r.Config.GetLinux().GetSysctls(),
	})
	return err
}

func (r *podRun) unpinNamespaces(context.Context) error {
	return r.undoing(r.ns.Unpin(r.nsDir(r.ID)))
}

func (r *podRun) makeCgroup(ctx context.Context) error {
	// Containers will be started in it.
	defer r.deps.Cgroups.Warm()
	if !r.OwnsCgroup && r.deps.Cgroups.Exists(r.CgroupPath) {
		return nil
	}
	var limits *specs.LinuxResources
	if given := r.Config.GetLinux().GetResources(); r.OwnsCgroup && given != nil {
		var err error
		if limits, err = spec.Resources(given, r.cfg.Features); err != nil {
			return err
		}
	}
	return r.deps.Cgroups.Create(ctx, r.CgroupPath, limits)
}

func (r *podRun) removeCgroup(ctx context.Context) error {
	if !r.OwnsCgroup {
		return nil
	}
	return r.undoing(r.deps.Cgroups.Remove(ctx, r.CgroupPath))
}

func (r *podRun) mountShm(context.Context) error { return r.Manager.mountShm(r.podState) }

func (r *podRun) unmountShm(context.Context) error {
	return r.undoing(r.ns.Unmount(r.shmDir(r.ID)))
}

func (r *podRun) addNetwork(ctx context.Context) (err error) {
	if r.NetNS == "" {
		return nil
	}
	if r.Network, err = r.deps.Network.Add(ctx, r.attachment()); err != nil {
		return err
	}
	if len(r.later) > 0 {
		return r.ns.Sysctls(ctx, r.NetNS, r.later)
	}
	return nil
}

func (r *podRun) delNetwork(ctx context.Context) error {
	if r.NetNS == "" {
		return nil
	}
	return r.undoing(r.deps.Network.Del(ctx, r.attachment()))
}

func (r *podRun) startInit(ctx context.Context) (err error) {
	if namespaceOptions(r.Config).GetPid() != runtime.NamespaceMode_POD {
		return nil
	}
	r.PID, err = r.startPodInit(ctx, r.podState)
	return err
}

func (r *podRun) stopInit(ctx context.Context) error {
	return r.undoing(r.stopPodInit(ctx, r.podState))
}

func (r *podRun) writeFiles(context.Context) error { return r.writePodFiles(r.podState) }

// writeReady turns the intent into the record.
func (r *podRun) writeReady(context.Context) error {
	ready := *r.podState
	ready.State = PodReady
	return r.putPod(&ready)
}

func (r *podRun) publishPod(context.Context) error {
	r.State = PodReady
	p := r.addPod(r.podState)
	r.publish(EventCreated, r.ID, p)
	r.publish(EventStarted, r.ID, p)
	return nil
}

func (r *podRun) unpublishPod(context.Context) error {
	r.dropPod(r.podState)
	return nil
}

// addPod lists a pod. One that was never ready has no name: another may have
// been made under it since.
func (m *Manager) addPod(s *podState) *pod {
	p := &pod{busy: newGate(), standing: newGate(), children: map[string]*container{}}
	p.state.Store(s)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pods[s.ID] = p
	if s.State != podMaking {
		m.podNames[podKey(s.Owner, s.Config.GetMetadata())] = p
	}
	return p
}

// dropPod takes a pod off the lists.
func (m *Manager) dropPod(s *podState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pods, s.ID)
	key := podKey(s.Owner, s.Config.GetMetadata())
	if p := m.podNames[key]; p != nil && p.get().ID == s.ID {
		delete(m.podNames, key)
	}
}

// initCgroup is where the pod's init lives: a leaf, for on cgroup v2 a group
// with groups below it holds no processes.
func (m *Manager) initCgroup(s *podState) string {
	if m.cfg.SystemdCgroup {
		return s.CgroupPath + "/nodeagent-init-" + s.ID[:16] + ".scope"
	}
	return s.CgroupPath + "/init-" + s.ID[:16]
}

// startPodInit starts the pod's init and pins its PID namespace. On an error
// stopPodInit takes away what is left.
func (m *Manager) startPodInit(ctx context.Context, s *podState) (pid int, err error) {
	sup, err := m.supervisor()
	if err != nil {
		return 0, err
	}
	init := supervisor.PodInit{ID: s.ID, CgroupPath: m.initCgroup(s)}
	// A scope is made with the process in it.
	if !m.cfg.SystemdCgroup {
		if err := m.deps.Cgroups.Create(ctx, init.CgroupPath, nil); err != nil {
			return 0, err
		}
	}
	// Containers that may look into it must not find a way to the host.
	for _, k := range s.Own {
		init.NamespacePaths = append(init.NamespacePaths, m.nsPath(s.ID, k))
	}
	// Last: afterwards only what belongs to it may be joined.
	if len(s.UIDs) > 0 {
		init.NamespacePaths = append(init.NamespacePaths, m.nsPath(s.ID, namespace.User))
	}
	if pid, err = sup.StartPodInit(ctx, init); err != nil {
		return 0, err
	}
	return pid, m.ns.PinPID(m.nsDir(s.ID), pid)
}

// stopPodInit is idempotent, and takes a pod that never had an init.
func (m *Manager) stopPodInit(ctx context.Context, s *podState) error {
	wanted := namespaceOptions(s.Config).GetPid() == runtime.NamespaceMode_POD
	if !wanted && s.PID == 0 && !m.ns.Pinned(m.nsPath(s.ID, namespace.PID)) {
		return nil
	}
	return m.killPodInit(ctx, s)
}

// killPodInit also kills an init that the supervisor knows nothing of, because
// it died between making and recording it.
func (m *Manager) killPodInit(ctx context.Context, s *podState) error {
	sup, err := m.supervisor()
	if err != nil {
		return err
	}
	err = sup.StopPodInit(ctx, s.ID)
	return errors.Join(err, m.deps.Cgroups.Kill(ctx, m.initCgroup(s)), m.deps.Cgroups.Remove(ctx, m.initCgroup(s)))
}
