package cri

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// GetContainerEvents sends every event of pods made over CRI, from now until
// the client goes. A client that reads too slowly is sent away with
// ResourceExhausted, and asks again.
func (s *Server) GetContainerEvents(_ *runtime.GetEventsRequest, out grpc.ServerStreamingServer[runtime.ContainerEventResponse]) error {
	events, cancel := s.sandboxes.Subscribe()
	defer cancel()
	ctx := out.Context()
	var last int64
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, ok := <-events:
			if !ok {
				return fmt.Errorf("send container events: the client is too slow or the agent is stopping: %w", errdefs.ErrResourceExhausted)
			}
			// CRI has no word for a container that goes on without one of its processes.
			if event.Pod.Owner != sandbox.OwnerCRI || event.Type == sandbox.EventOOM {
				continue
			}
			// kubelet drops what is not newer than what it knows.
			last = max(nanos(event.At), last+1)
			if err := out.Send(s.containerEvent(ctx, &event, last)); err != nil {
				return err
			}
		}
	}
}

func (s *Server) containerEvent(ctx context.Context, event *sandbox.Event, at int64) *runtime.ContainerEventResponse {
	return &runtime.ContainerEventResponse{
		ContainerId:        event.ContainerID,
		ContainerEventType: eventType(event.Type),
		CreatedAt:          at,
		PodSandboxStatus:   podStatus(&event.Pod),
		ContainersStatuses: s.containerStatuses(ctx, s.sandboxes.PodContainers(event.Pod.ID)),
	}
}

func eventType(kind sandbox.EventType) runtime.ContainerEventType {
	switch kind {
	case sandbox.EventStarted:
		return runtime.ContainerEventType_CONTAINER_STARTED_EVENT
	case sandbox.EventStopped:
		return runtime.ContainerEventType_CONTAINER_STOPPED_EVENT
	case sandbox.EventDeleted:
		return runtime.ContainerEventType_CONTAINER_DELETED_EVENT
	default:
		return runtime.ContainerEventType_CONTAINER_CREATED_EVENT
	}
}
