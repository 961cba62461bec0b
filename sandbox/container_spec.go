package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
	"github.com/nodeagent/nodeagent/sandbox/spec"
	"github.com/nodeagent/nodeagent/sandbox/spec/cdidevice"
	"github.com/nodeagent/nodeagent/sandbox/spec/hostdevice"
)

// specification gathers the facts and builds the OCI specification.
func (m *Manager) specification(ctx context.Context, c *containerState, p *pod, image *ocispec.Image) (*specs.Spec, error) {
	s := p.get()
	paths, err := m.namespacePaths(ctx, c, p)
	if err != nil {
		return nil, err
	}
	profile, err := seccompProfile(c.Config)
	if err != nil {
		return nil, err
	}
	handler := m.cfg.Handlers[s.Handler]
	in := spec.Input{
		ID: c.ID, Container: c.Config, Pod: s.Config, Image: image, Rootfs: c.Rootfs, User: c.RunAs,
		NamespacePaths: paths, Mounts: c.Mounts, CgroupsPath: m.cgroupsPath(c, s),
		Files: spec.Files{
			Hosts:      filepath.Join(m.podDir(s.ID), hostsFile),
			Hostname:   filepath.Join(m.podDir(s.ID), hostnameFile),
			ResolvConf: filepath.Join(m.podDir(s.ID), resolvFile),
		},
		ShmPath: m.shmPath(s), Hostname: s.Hostname, Host: m.cfg.Features,
		SeccompProfile: profile, DefaultMasks: c.Owner == OwnerNodectl, Extra: c.Extra,
		PidsLimit: cmp.Or(handler.PidsLimit, m.cfg.PidsLimit), NoHostDevices: handler.NoHostDevices,
	}
	if in.UIDMappings, in.GIDMappings, _, err = spec.ParseUserNamespace(namespaceOptions(s.Config).GetUsernsOptions()); err != nil {
		return nil, err
	}
	if c.Extra != nil {
		in.DefaultMasks = in.DefaultMasks && !c.Extra.Unmasked
		if err := m.shareNamespaces(&in, c.Extra); err != nil {
			return nil, err
		}
	}
	if !slices.Contains(s.Own, namespace.IPC) {
		_, err := os.Stat("/dev/mqueue")
		in.NoMqueue = err != nil
	}
	if in.Devices, err = hostdevice.Resolve(c.Config.GetDevices()); err != nil {
		return nil, err
	}
	if c.Config.GetLinux().GetSecurityContext().GetPrivileged() && !handler.NoHostDevices {
		if in.HostDevices, err = hostdevice.List("/dev"); err != nil {
			return nil, err
		}
	}
	in.Edit = cdidevice.Edit(m.cfg.CDIDirs, c.Config.GetCDIDevices())
	return spec.Build(in)
}

// withHome gives a process the home folder found in the image's passwd file,
// where nobody set one. Otherwise libcontainer would look for it in the
// container, whose processes may have put there what cannot be read to an end.
func withHome(p *specs.Process, home string) *specs.Process {
	for _, entry := range p.Env {
		if value, ok := strings.CutPrefix(entry, "HOME="); ok && value != "" {
			return p
		}
	}
	if home == "" {
		home = "/"
	}
	with := *p
	with.Env = append(slices.Clone(p.Env), "HOME="+home)
	return &with
}

// withSize gives a terminal its client's size before the process can ask for
// it; one without a client gets its size when somebody attaches.
func withSize(p *specs.Process, c *client) *specs.Process {
	if c == nil || !p.Terminal || c.io.Size.Width == 0 || c.io.Size.Height == 0 {
		return p
	}
	with := *p
	with.ConsoleSize = &specs.Box{Width: uint(c.io.Size.Width), Height: uint(c.io.Size.Height)}
	return &with
}

// processFile holds what an exec needs of the specification.
const processFile = "process.json"

// saveProcess keeps the process of the specification for execs. The rest of
// the specification, which is ten times as large, is not needed again.
func (m *Manager) saveProcess(id string, built *specs.Spec) error {
	data, err := json.Marshal(specs.Spec{Version: built.Version, Process: built.Process})
	if err != nil {
		return fmt.Errorf("encode process of container %s: %w", id, err)
	}
	return os.WriteFile(filepath.Join(m.containerDir(id), processFile), data, 0o600)
}

// loadProcess gives a specification with nothing but the process.
func (m *Manager) loadProcess(id string) (*specs.Spec, error) {
	data, err := atomicfile.Read(filepath.Join(m.containerDir(id), processFile), maxProcessFile)
	if err != nil {
		return nil, fmt.Errorf("read process of container %s: %w", id, err)
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil || s.Process == nil {
		return nil, fmt.Errorf("read process of container %s: %w", id, errors.Join(err, errdefs.ErrDataLoss))
	}
	return &s, nil
}

// maxProcessFile bounds the file, in bytes: arguments and environment come in
// requests of at most 16 MiB, and JSON may write a byte with six.
const maxProcessFile = 128 << 20

// containerCgroup is the container's cgroup as package cgroups names it.
func (m *Manager) containerCgroup(p *podState, id string) string {
	if m.cfg.SystemdCgroup {
		return path.Join(p.CgroupPath, "nodeagent-"+id+".scope")
	}
	return path.Join(p.CgroupPath, id)
}

// cgroupsPath is the container's cgroup as libcontainer names it.
func (m *Manager) cgroupsPath(c *containerState, p *podState) string {
	if m.cfg.SystemdCgroup {
		return path.Base(p.CgroupPath) + ":nodeagent:" + c.ID
	}
	return c.CgroupPath
}

// namespacePaths says which namespaces the container joins, gets of its own
// or shares with the host.
func (m *Manager) namespacePaths(ctx context.Context, c *containerState, p *pod) (map[specs.LinuxNamespaceType]string, error) {
	s := p.get()
	paths := map[specs.LinuxNamespaceType]string{}
	types := map[namespace.Kind]specs.LinuxNamespaceType{
		namespace.Net: specs.NetworkNamespace, namespace.IPC: specs.IPCNamespace, namespace.UTS: specs.UTSNamespace,
	}
	for _, k := range s.Own {
		paths[types[k]] = m.nsPath(s.ID, k)
	}
	if target := networkTarget(s.Config); target != "" {
		path := m.nsPath(target, namespace.Net)
		if !m.ns.Pinned(path) {
			return nil, fmt.Errorf("the pod %s whose network it shares is gone: %w", target, errdefs.ErrFailedPrecondition)
		}
		paths[specs.NetworkNamespace] = path
	}
	if len(s.UIDs) > 0 {
		paths[specs.UserNamespace] = m.nsPath(s.ID, namespace.User)
	}
	o := c.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if o == nil {
		o = namespaceOptions(s.Config)
	}
	switch o.GetPid() {
	case runtime.NamespaceMode_CONTAINER:
		paths[specs.PIDNamespace] = ""
	case runtime.NamespaceMode_TARGET:
		target, err := m.targetPID(o.GetTargetId(), s.ID)
		if err != nil {
			return nil, err
		}
		paths[specs.PIDNamespace] = fmt.Sprintf("/proc/%d/ns/pid", target)
	case runtime.NamespaceMode_POD:
		if err := m.ensureInit(ctx, p); err != nil {
			return nil, err
		}
		paths[specs.PIDNamespace] = m.nsPath(s.ID, namespace.PID)
	}
	return paths, nil
}

// shareNamespaces puts the namespaces of the host and of other containers in
// place of the pod's. One whose container does not run cannot be joined.
func (m *Manager) shareNamespaces(in *spec.Input, x *spec.Extra) error {
	if x.HostUTS {
		delete(in.NamespacePaths, specs.UTSNamespace)
	}
	for _, join := range []struct {
		id   string
		kind specs.LinuxNamespaceType
		name string
	}{{x.PIDContainer, specs.PIDNamespace, "pid"}, {x.IPCContainer, specs.IPCNamespace, "ipc"}} {
		if join.id == "" {
			continue
		}
		c, err := m.findContainer(join.id)
		if err != nil {
			return fmt.Errorf("join the %s namespace: %w", join.name, err)
		}
		other := c.get()
		if other.PID == 0 {
			return fmt.Errorf("cannot join %s namespace of a non running container: container %s is %s: %w",
				join.name, other.ID, other.State, errdefs.ErrFailedPrecondition)
		}
		in.NamespacePaths[join.kind] = fmt.Sprintf("/proc/%d/ns/%s", other.PID, join.name)
		if join.kind == specs.IPCNamespace {
			in.ShmPath = m.shmPath(c.pod.get())
		}
	}
	return nil
}

// targetPID is the process whose PID namespace a container asked for: that of
// a running container of the same pod.
func (m *Manager) targetPID(id, podID string) (int, error) {
	c, err := m.findContainer(id)
	if err != nil {
		return 0, fmt.Errorf("target: %w", err)
	}
	s := c.get()
	if s.PodID != podID {
		return 0, invalid("linux.security_context.namespace_options.target_id", "container %s is in another pod", s.ID)
	}
	if s.PID == 0 {
		return 0, fmt.Errorf("target container %s is %s: %w", s.ID, s.State, errdefs.ErrFailedPrecondition)
	}
	return s.PID, nil
}

// ensureInit starts the pod's init for the first container that wants it,
// where the pod itself did not ask for one.
func (m *Manager) ensureInit(ctx context.Context, p *pod) error {
	err := m.startLateInit(ctx, p)
	if err != nil && upright(p.get()) != nil {
		// The stop that came in between may have looked for an init and a
		// cgroup before they were there again. It may wait for our container,
		// so it cannot be waited for here.
		m.background("undo late init of pod "+p.get().ID, func(ctx context.Context) error { return m.undoLateInit(ctx, p) })
	}
	return err
}

// undoLateInit takes away what a start left in a pod that was stopped meanwhile.
func (m *Manager) undoLateInit(ctx context.Context, p *pod) error {
	if err := acquire(ctx, p.standing); err != nil {
		return err
	}
	defer p.standing.release()
	s := p.get()
	if upright(s) == nil {
		return nil // somebody revived it
	}
	if err := m.killPodInit(ctx, s); err != nil {
		return err
	}
	return m.releaseCgroup(ctx, s)
}

// startLateInit fails, and may leave an init, when the pod is stopped meanwhile.
func (m *Manager) startLateInit(ctx context.Context, p *pod) error {
	if err := acquire(ctx, p.busy); err != nil {
		return err
	}
	defer p.busy.release()
	s := p.get()
	if err := upright(s); err != nil || s.PID != 0 {
		return err
	}
	pid, err := m.startPodInit(ctx, s)
	if err != nil {
		return errors.Join(err, m.killPodInit(ctx, s))
	}
	if err := upright(p.get()); err != nil {
		return err
	}
	err = m.changePod(p, func(s *podState) {
		if upright(s) == nil {
			s.PID = pid
		}
	})
	if err != nil {
		return errors.Join(err, m.killPodInit(ctx, s))
	}
	return upright(p.get())
}

// upright fails for a pod that is stopped, or being stopped.
func upright(s *podState) error {
	if s.State == PodStopping || s.State == PodNotReady {
		return fmt.Errorf("pod is %s: %w", s.State, errdefs.ErrFailedPrecondition)
	}
	return nil
}
