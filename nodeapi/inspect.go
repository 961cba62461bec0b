package nodeapi

import (
	"context"
	"fmt"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Inspect tells everything about one container.
func (s *containers) Inspect(ctx context.Context, req *nodev1.InspectRequest) (*nodev1.InspectResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	images, err := s.images.Images(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	// A pod that has just gone is the zero value: the rest is still told.
	pod, _ := s.sandboxes.Pod(c.PodID)
	resp := &nodev1.InspectResponse{
		Container: s.containerMessage(c, pod, namesOf(images)), Spec: s.spec(pod),
		Env: c.Env, WorkingDir: c.WorkingDir, LogPath: c.LogPath,
		Rootfs: c.Rootfs, SnapshotKey: c.SnapshotKey, CgroupPath: c.CgroupPath,
		StopSignal: c.StopSignal, PodId: c.PodID, Addresses: addresses(pod), Endpoints: s.endpoints(pod),
		ExecIds: s.execsOf(c.ID),
	}
	sec := c.Config.GetLinux().GetSecurityContext()
	resp.MaskedPaths, resp.ReadonlyPaths = sec.GetMaskedPaths(), sec.GetReadonlyPaths()
	if resp.LayerDirs, err = s.layers.LayerDirs(c.SnapshotKey); err != nil {
		resp.LayerDirs = nil // a container that is being removed, or a snapshotter without folders
	}
	if running(c) && s.sandboxes.OOMKilled(c.ID) {
		resp.Container.Reason = "OOMKilled" // it goes on without one of its processes
	}
	if req.GetSizes() {
		if err := s.addSizes(ctx, resp.Container, c); err != nil {
			return nil, err
		}
	}
	if resp.Spec == nil {
		resp.Spec = criSpec(c, pod)
	} else {
		s.addNetworkFiles(resp, pod)
		resp.Spec = s.withLinkNames(c, resp.Spec)
		resp.Health = resp.Spec.GetHealth()
		var status string
		if status, resp.FailingStreak, resp.HealthLog = s.knownHealth(c).state(); status != "" && hasCheck(resp.Health) {
			resp.Container.Health = status // of the same moment
		}
	}
	return resp, nil
}

// addresses are the pod's in its network.
func addresses(pod sandbox.Pod) *nodev1.Addresses {
	out := &nodev1.Addresses{Netns: pod.NetNS}
	if pod.Network == nil {
		return out
	}
	out.Network, out.Mac = pod.Network.Network, pod.Network.MAC
	for _, prefix := range pod.Network.Addresses {
		out.Addresses = append(out.Addresses, prefix.String())
	}
	if pod.Network.Gateway.IsValid() {
		out.Gateway = pod.Network.Gateway.String()
	}
	return out
}

// criSpec tells of one of kubelet's containers what a specification can.
func criSpec(c sandbox.Container, pod sandbox.Pod) *nodev1.ContainerSpec {
	sec := c.Config.GetLinux().GetSecurityContext()
	res := c.Config.GetLinux().GetResources()
	spec := &nodev1.ContainerSpec{
		Image: c.ImageRef, Entrypoint: c.Config.GetCommand(), Command: c.Config.GetArgs(),
		WorkingDir: c.WorkingDir, Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations(),
		Hostname: pod.Config.GetHostname(), Tty: c.Config.GetTty(), Stdin: c.Config.GetStdin(),
		StdinOnce: c.Config.GetStdinOnce(), StopSignal: c.StopSignal,
		Resources: &nodev1.Resources{
			MemoryBytes: res.GetMemoryLimitInBytes(), CpuShares: res.GetCpuShares(),
			CpusetCpus: res.GetCpusetCpus(), CpusetMems: res.GetCpusetMems(), OomScoreAdj: res.GetOomScoreAdj(),
		},
		Security: &nodev1.Security{
			Privileged: sec.GetPrivileged(), ReadOnly: sec.GetReadonlyRootfs(), NoNewPrivileges: sec.GetNoNewPrivs(),
			CapAdd: sec.GetCapabilities().GetAddCapabilities(), CapDrop: sec.GetCapabilities().GetDropCapabilities(),
			HostPid: sec.GetNamespaceOptions().GetPid() == runtime.NamespaceMode_NODE,
			HostIpc: sec.GetNamespaceOptions().GetIpc() == runtime.NamespaceMode_NODE,
		},
		Network: &nodev1.Network{Mode: networkMode(pod), Ports: podPorts(pod)},
		Mounts:  criMounts(c),
	}
	if res.GetCpuPeriod() > 0 && res.GetCpuQuota() > 0 {
		spec.Resources.NanoCpus = res.GetCpuQuota() * 1e9 / res.GetCpuPeriod()
	}
	return spec
}
