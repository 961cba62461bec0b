package nodeapi

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/types/known/timestamppb"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// List gives nodectl's containers, and kubelet's when asked, newest first.
func (s *containers) List(ctx context.Context, req *nodev1.ListRequest) (*nodev1.ListResponse, error) {
	images, err := s.images.Images(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	names, platforms := namesOf(images), platformsOf(images)
	pods := map[string]sandbox.Pod{}
	for _, pod := range s.sandboxes.Pods() {
		pods[pod.ID] = pod
	}
	resp := &nodev1.ListResponse{}
	for _, c := range s.sandboxes.Containers() {
		if c.Owner != sandbox.OwnerNodectl && !req.GetPods() {
			continue
		}
		m := s.containerMessage(c, pods[c.PodID], names)
		m.Platform = platforms[c.ImageID]
		if req.GetSizes() {
			if err := s.addSizes(ctx, m, c); err != nil {
				return nil, err
			}
		}
		resp.Containers = append(resp.Containers, m)
	}
	slices.SortFunc(resp.Containers, func(a, b *nodev1.Container) int {
		if order := b.GetCreatedAt().AsTime().Compare(a.GetCreatedAt().AsTime()); order != 0 {
			return order
		}
		return strings.Compare(a.GetId(), b.GetId())
	})
	return resp, nil
}

// addSizes adds what a container takes on disk. One that is being removed
// takes nothing.
func (s *Server) addSizes(ctx context.Context, m *nodev1.Container, c sandbox.Container) error {
	if c.Folder != "" {
		return nil // what is in it is the person's
	}
	own, all, err := s.layers.ChainUsage(ctx, c.SnapshotKey)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("size of container %s: %w", c.ID, err)
	}
	m.SizeRw, m.SizeRootFs = own, all
	return nil
}

// platformsOf says what images are for, by their IDs.
func platformsOf(images []imageservice.Image) map[string]string {
	found := map[string]string{}
	for _, img := range images {
		if img.Config != nil && img.Config.OS != "" {
			found[img.ID] = path.Join(img.Config.OS, img.Config.Architecture, img.Config.Variant)
		}
	}
	return found
}

// namesOf maps each normalised reference to the ID it means now.
func namesOf(images []imageservice.Image) map[string]string {
	names := map[string]string{}
	for _, img := range images {
		for _, ref := range append(slices.Clone(img.Tags), img.Digests...) {
			names[ref] = img.ID
		}
	}
	return names
}

// containerMessage is a container as the node API shows it. pod may be the
// zero value when it has just gone.
func (s *Server) containerMessage(c sandbox.Container, pod sandbox.Pod, names map[string]string) *nodev1.Container {
	m := &nodev1.Container{
		Id: c.ID, Name: c.Config.GetMetadata().GetName(),
		Image: c.ImageRef, ImageId: c.ImageID, Args: c.Args,
		CreatedAt: timestamp(c.CreatedAt), StartedAt: timestamp(c.StartedAt), FinishedAt: timestamp(c.FinishedAt),
		State: string(c.State), ExitCode: int32(c.ExitCode), Reason: c.Reason, Message: c.Message,
		Pid: int64(c.PID), Labels: c.Config.GetLabels(), Tty: c.Config.GetTty(),
		NetworkMode: networkMode(pod), Networks: s.networkNames(pod),
	}
	spec := s.spec(pod)
	if spec == nil {
		meta := pod.Config.GetMetadata()
		m.Pod = &nodev1.Pod{Id: c.PodID, Name: meta.GetName(), Namespace: meta.GetNamespace(), Uid: meta.GetUid()}
		if name := c.Config.GetImage().GetUserSpecifiedImage(); name != "" {
			m.Image = name
		}
		m.Ports = podPorts(pod)
		m.Mounts = criMounts(c)
	} else {
		m.Image, m.ExitCode = cmp.Or(spec.GetImage(), spec.GetRootfs()), personExit(c)
		m.Ports = specPorts(spec)
		m.Mounts = spec.GetMounts()
		m.AutoRemove = spec.GetAutoRemove()
		m.NetworkMode = spec.GetNetwork().GetMode()
		if c.State == sandbox.ContainerExited && c.StartedAt.IsZero() {
			// To docker's users one that could not be started is as it was made.
			m.State, m.FinishedAt = string(sandbox.ContainerCreated), nil
		}
		s.addUpkeep(m, c, pod, spec)
	}
	switch id, ok := names[s.normals.of(m.Image)]; {
	case c.ImageID == "": // it has a folder in place of an image
	case ok && id != c.ImageID, !ok && spec != nil && !isIDOf(m.Image, c.ImageID):
		// The name means another image now, or nothing.
		m.Image = c.ImageID
	}
	return m
}

// isIDOf says whether a name is an image's ID or the beginning of it.
func isIDOf(name, id string) bool {
	return name != "" && strings.HasPrefix(strings.TrimPrefix(id, "sha256:"), strings.TrimPrefix(name, "sha256:"))
}

// stateRestarting is that of a container that waits to be started again.
const stateRestarting = "restarting"

// addUpkeep adds what is known of restarts and health.
func (s *Server) addUpkeep(m *nodev1.Container, c sandbox.Container, pod sandbox.Pod, spec *nodev1.ContainerSpec) {
	if s.restarting(c) {
		m.State = stateRestarting
	}
	if hasCheck(spec.GetHealth()) && !c.StartedAt.IsZero() {
		m.Health = healthStarting
		if status, _, _ := s.knownHealth(c).state(); status != "" {
			m.Health = status
		}
	}
	if !hasPolicy(spec) {
		return
	}
	// One that cannot be read counts none.
	run, _ := s.runOf(podKey(pod))
	m.RestartCount = run.Restarts
}

// networkMode is docker's word for the pod's network.
func networkMode(pod sandbox.Pod) string {
	if pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == runtime.NamespaceMode_NODE {
		return networkHost
	}
	return networkBridge
}

// specPorts are the published ports, then those only exposed.
func specPorts(spec *nodev1.ContainerSpec) []*nodev1.Port {
	if spec.GetNetwork().GetMode() == networkHost {
		return nil
	}
	published := map[string]bool{}
	var out []*nodev1.Port
	for _, p := range spec.GetNetwork().GetPorts() {
		published[fmt.Sprintf("%d/%s", p.GetContainerPort(), p.GetProtocol())] = true
		out = append(out, p)
	}
	for _, text := range spec.GetNetwork().GetExpose() {
		if p, ok := parsePort(text); ok && !published[text] {
			out = append(out, p)
		}
	}
	return out
}

// podPorts are the ports of one of kubelet's pods.
func podPorts(pod sandbox.Pod) []*nodev1.Port {
	var out []*nodev1.Port
	for _, m := range pod.Config.GetPortMappings() {
		out = append(out, &nodev1.Port{
			ContainerPort: uint32(m.GetContainerPort()), HostPort: uint32(m.GetHostPort()),
			Protocol: strings.ToLower(m.GetProtocol().String()), HostIp: m.GetHostIp(),
		})
	}
	return out
}

// criMounts are the mounts of one of kubelet's containers.
func criMounts(c sandbox.Container) []*nodev1.Mount {
	var out []*nodev1.Mount
	for _, m := range c.Mounts {
		mount := &nodev1.Mount{Source: m.GetHostPath(), Target: m.GetContainerPath(), ReadOnly: m.GetReadonly()}
		if m.GetImage().GetImage() != "" {
			mount.Type, mount.Source = nodev1.Mount_IMAGE, m.GetImage().GetImage()
		}
		switch m.GetPropagation() {
		case runtime.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
			mount.Propagation = "rslave"
		case runtime.MountPropagation_PROPAGATION_BIDIRECTIONAL:
			mount.Propagation = "rshared"
		default:
			mount.Propagation = "rprivate"
		}
		out = append(out, mount)
	}
	return out
}

// timestamp is nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
