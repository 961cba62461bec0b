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
	spec := s.spec(pod)
	release, err := s.makeReady(ctx, c, pod, spec)
	if err != nil {
		s.notStarted(c, spec)
		return nil, err
	}
	// A start goes on when its caller leaves, and needs what was made ready.
	goesOn, cancel := s.bound(context.WithoutCancel(ctx))
	defer cancel()
	attachment, err := s.sandboxes.StartContainer(goesOn, c.ID, streams)
	release()
	now, gone := s.sandboxes.Container(c.ID)
	if gone == nil && !running(now) {
		s.unmountVolumes(c) // its end came before the release
	}
	if errdefs.IsFailedPrecondition(err) && streams == nil && gone == nil && running(now) {
		err = nil // a person and its restart policy wanted the same
	}
	switch {
	case gone != nil:
	case err == nil:
		s.tellStart(now)
	case !running(now): // else it was started by another
		s.notStarted(c, spec)
	}
	return attachment, err
}

// makeReady makes what a container finds when it starts; the caller calls release
// once it has.
func (s *Server) makeReady(ctx context.Context, c sandbox.Container, pod sandbox.Pod, spec *nodev1.ContainerSpec) (release func(), err error) {
	if err := s.checkJoined(pod); err != nil {
		return nil, err
	}
	release = func() {}
	if spec != nil {
		if err := s.revive(ctx, pod, spec); err != nil {
			return nil, err
		}
		if release, err = s.useVolumes(ctx, spec); err != nil {
			return nil, err
		}
		if err := s.files.mountTmpfs(podKey(pod), spec.GetMounts()); err != nil {
			release()
			return nil, err
		}
		parts, err := s.readyParts(podKey(pod), spec.GetMounts())
		if err != nil {
			release()
			return nil, err
		}
		volumes := release
		release = func() { parts(); volumes() }
	}
	if err := s.checkLinks(c, pod, spec); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// notStarted removes a container that was to remove itself, and did not start.
func (s *Server) notStarted(c sandbox.Container, spec *nodev1.ContainerSpec) {
	if spec.GetAutoRemove() {
		s.goBackground(func(ctx context.Context) { s.removeLogged(ctx, c) })
	}
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
