package cri

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// nanos is a time as CRI has it: nanoseconds since 1970, zero for never.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// containerState: a paused container counts as running, as its processes exist.
func containerState(state sandbox.ContainerState) runtime.ContainerState {
	switch state {
	case sandbox.ContainerCreated:
		return runtime.ContainerState_CONTAINER_CREATED
	case sandbox.ContainerRunning, sandbox.ContainerPaused:
		return runtime.ContainerState_CONTAINER_RUNNING
	case sandbox.ContainerExited:
		return runtime.ContainerState_CONTAINER_EXITED
	default:
		return runtime.ContainerState_CONTAINER_UNKNOWN
	}
}

// containerItem is a container as lists have it.
func containerItem(ctr *sandbox.Container) *runtime.Container {
	return &runtime.Container{
		Id:           ctr.ID,
		PodSandboxId: ctr.PodID,
		Metadata:     ctr.Config.GetMetadata(),
		Image:        ctr.Config.GetImage(),
		ImageRef:     ctr.ImageID,
		ImageId:      ctr.ImageID,
		State:        containerState(ctr.State),
		CreatedAt:    nanos(ctr.CreatedAt),
		Labels:       ctr.Config.GetLabels(),
		Annotations:  ctr.Config.GetAnnotations(),
	}
}

// containerStatus is a container as ContainerStatus and events have it.
func (s *Server) containerStatus(ctx context.Context, ctr *sandbox.Container) *runtime.ContainerStatus {
	name, ref := s.imageOf(ctx, ctr)
	return &runtime.ContainerStatus{
		Id:         ctr.ID,
		Metadata:   ctr.Config.GetMetadata(),
		State:      containerState(ctr.State),
		CreatedAt:  nanos(ctr.CreatedAt),
		StartedAt:  nanos(ctr.StartedAt),
		FinishedAt: nanos(ctr.FinishedAt),
		ExitCode:   int32(ctr.ExitCode),
		Image: &runtime.ImageSpec{
			Image:              name,
			UserSpecifiedImage: ctr.Config.GetImage().GetUserSpecifiedImage(),
			RuntimeHandler:     ctr.Config.GetImage().GetRuntimeHandler(),
		},
		ImageRef:    ref,
		ImageId:     ctr.ImageID,
		Reason:      ctr.Reason,
		Message:     ctr.Message,
		Labels:      ctr.Config.GetLabels(),
		Annotations: ctr.Config.GetAnnotations(),
		Mounts:      s.mountsOf(ctx, ctr.Mounts),
		LogPath:     ctr.LogPath,
		Resources:   &runtime.ContainerResources{Linux: ctr.Config.GetLinux().GetResources()},
		User:        ctr.User,
		StopSignal:  stopSignal(ctr.StopSignal),
	}
}

// containerStatuses are those of several containers.
func (s *Server) containerStatuses(ctx context.Context, ctrs []sandbox.Container) []*runtime.ContainerStatus {
	statuses := make([]*runtime.ContainerStatus, len(ctrs))
	for i := range ctrs {
		statuses[i] = s.containerStatus(ctx, &ctrs[i])
	}
	return statuses
}

// imageOf gives a container's image by name, preferring what its author wrote,
// and by repository digest, which kubelet shows as imageID. The image may be
// gone; then the container's own record answers.
func (s *Server) imageOf(ctx context.Context, ctr *sandbox.Container) (name, ref string) {
	asked := ctr.Config.GetImage().GetUserSpecifiedImage()
	if asked == "" {
		asked = ctr.ImageRef
	}
	name, ref = asked, ctr.ImageID
	img, err := s.images.Image(ctx, ctr.ImageID)
	if err != nil {
		if name == "" {
			name = ctr.ImageID
		}
		return name, ref
	}
	if tag := tagFor(img, asked); tag != "" {
		name = tag
	}
	if digest := digestFor(img, name); digest != "" {
		ref = digest
	}
	if name == "" {
		name = ref
	}
	return name, ref
}

// mountsOf gives a container's mounts; those of images tell the image by its
// repository digest, as the container's status tells its own.
func (s *Server) mountsOf(ctx context.Context, mounts []*runtime.Mount) []*runtime.Mount {
	told := slices.Clone(mounts)
	for i, mount := range told {
		id := mount.GetImage().GetImageRef()
		if id == "" {
			continue
		}
		img, err := s.images.Image(ctx, id)
		if err != nil {
			continue
		}
		if digest := digestFor(img, mount.GetImage().GetImage()); digest != "" {
			told[i] = proto.CloneOf(mount)
			told[i].Image.ImageRef = digest
		}
	}
	return told
}

// tagFor picks the tag that asked is a shorter form of ("busybox" for
// "docker.io/library/busybox:latest"), else the first.
func tagFor(img imageservice.Image, asked string) string {
	for _, tag := range img.Tags {
		if asked != "" && (tag == asked || strings.HasSuffix(tag, "/"+asked) ||
			tag == asked+":latest" || strings.HasSuffix(tag, "/"+asked+":latest")) {
			return tag
		}
	}
	if len(img.Tags) > 0 {
		return img.Tags[0]
	}
	return ""
}

// digestFor picks the digest in the repository that name is of, else the first.
func digestFor(img imageservice.Image, name string) string {
	for _, digest := range img.Digests {
		if repository(digest) == repository(name) {
			return digest
		}
	}
	if len(img.Digests) > 0 {
		return img.Digests[0]
	}
	return ""
}

// repository cuts tag and digest off a reference.
func repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	return ref
}

// stopSignal turns "SIGTERM", "SIGRTMIN+3" into CRI's number; the default's
// when the name is not one of CRI's.
func stopSignal(name string) runtime.Signal {
	name = strings.NewReplacer("RTMIN+", "RTMINPLUS", "RTMAX-", "RTMAXMINUS").Replace(name)
	return runtime.Signal(runtime.Signal_value["SIGNAL_"+name])
}
