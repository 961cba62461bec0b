package cri

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pod finds a pod made over CRI by its ID or a unique prefix of it. field is
// the request's, for the refusal of an empty one.
func (s *Server) pod(field, id string) (sandbox.Pod, error) {
	if id == "" {
		return sandbox.Pod{}, missing(field)
	}
	pod, err := s.sandboxes.Pod(id)
	if err != nil {
		return sandbox.Pod{}, err
	}
	if pod.Owner != sandbox.OwnerCRI {
		return sandbox.Pod{}, fmt.Errorf("pod %s: %w", id, errdefs.ErrNotFound)
	}
	return pod, nil
}

// container finds a container made over CRI, as pod does.
func (s *Server) container(id string) (sandbox.Container, error) {
	if id == "" {
		return sandbox.Container{}, missing("container_id")
	}
	ctr, err := s.sandboxes.Container(id)
	if err != nil {
		return sandbox.Container{}, err
	}
	if ctr.Owner != sandbox.OwnerCRI {
		return sandbox.Container{}, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	return ctr, nil
}

// pods are all pods made over CRI.
func (s *Server) pods() []sandbox.Pod {
	all := s.sandboxes.Pods()
	own := make([]sandbox.Pod, 0, len(all))
	for _, pod := range all {
		if pod.Owner == sandbox.OwnerCRI {
			own = append(own, pod)
		}
	}
	return own
}

// containers are all containers made over CRI.
func (s *Server) containers() []sandbox.Container {
	all := s.sandboxes.Containers()
	own := make([]sandbox.Container, 0, len(all))
	for _, ctr := range all {
		if ctr.Owner == sandbox.OwnerCRI {
			own = append(own, ctr)
		}
	}
	return own
}

// running finds a container that must be running for what verb says.
func (s *Server) running(verb, id string) (sandbox.Container, error) {
	ctr, err := s.container(id)
	if err != nil {
		return ctr, err
	}
	if containerState(ctr.State) != runtime.ContainerState_CONTAINER_RUNNING {
		return ctr, fmt.Errorf("%s container %s: it is %s, not running: %w", verb, ctr.ID, ctr.State, errdefs.ErrFailedPrecondition)
	}
	return ctr, nil
}
