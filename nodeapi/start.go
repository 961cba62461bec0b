package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
)

// errStartPaused refuses to start what was started and paused.
var errStartPaused = failf(errdefs.ErrFailedPrecondition, "cannot start a paused container, try unpause instead")

// Start starts a container that does not run.
func (s *containers) Start(ctx context.Context, req *nodev1.StartRequest) (*nodev1.StartResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	if c.State == sandbox.ContainerPaused {
		return nil, errStartPaused
	}
	if running(c) {
		return &nodev1.StartResponse{Id: c.ID}, nil
	}
	if err := s.startedByPerson(c); err != nil {
		return nil, err
	}
	if _, err := s.start(ctx, c, nil); err != nil {
		return nil, err
	}
	return &nodev1.StartResponse{Id: c.ID}, nil
}

// start starts a container with fresh tmpfs mounts. One that was to remove
// itself and could not be started is removed.
func (s *Server) start(ctx context.Context, c sandbox.Container, streams *sandbox.IO) (*sandbox.Attachment, error) {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil {
		return nil, err
	}
	if err := s.checkJoined(pod); err != nil {
		return nil, err
	}
	spec := s.spec(pod)
	if spec != nil {
		if err := s.revive(ctx, pod, spec); err != nil {
			return nil, err
		}
		if err := s.mountVolumes(ctx, spec); err != nil {
			return nil, err
		}
		if err := s.files.mountTmpfs(podKey(pod), spec.GetMounts()); err != nil {
			return nil, err
		}
	}
	if err := s.checkLinks(c, pod, spec); err != nil {
		return nil, err
	}
	attachment, err := s.sandboxes.StartContainer(ctx, c.ID, streams)
	if err != nil && spec.GetAutoRemove() {
		s.goBackground(func(ctx context.Context) { s.removeLogged(ctx, c) })
	}
	if err == nil {
		if now, err := s.sandboxes.Container(c.ID); err == nil {
			s.tellStart(now)
		}
	}
	return attachment, err
}

// revive gives a container its namespaces and its network back that a reboot
// took, and tells its files of the new addresses.
func (s *Server) revive(ctx context.Context, pod sandbox.Pod, spec *nodev1.ContainerSpec) error {
	if pod.State == sandbox.PodReady {
		return nil
	}
	if err := s.sandboxes.RevivePod(ctx, pod.ID); err != nil {
		return personal(err)
	}
	pod, err := s.sandboxes.Pod(pod.ID)
	if err != nil {
		return err
	}
	return s.refreshNetworkFiles(podKey(pod), pod, spec)
}

// running says whether a container has a process.
func running(c sandbox.Container) bool {
	return c.State == sandbox.ContainerRunning || c.State == sandbox.ContainerPaused
}
