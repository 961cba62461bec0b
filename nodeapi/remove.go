package nodeapi

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
)

const (
	// undoTimeout bounds the undoing of a failed creation.
	undoTimeout = 30 * time.Second
	// removeTimeout bounds a removal, which goes on without its caller.
	removeTimeout = 2 * time.Minute
)

// Remove removes a container, and for one of nodectl's its pod and files.
func (s *containers) Remove(ctx context.Context, req *nodev1.RemoveRequest) (*nodev1.RemoveResponse, error) {
	if req.GetLink() {
		return &nodev1.RemoveResponse{}, s.unlink(req.GetContainer())
	}
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	state := string(c.State)
	if s.restarting(c) {
		state = stateRestarting
	}
	if (running(c) || state == stateRestarting) && !req.GetForce() {
		name := "/" + strings.TrimPrefix(req.GetContainer(), "/")
		if c.Owner == sandbox.OwnerNodectl {
			name = "/" + c.Config.GetMetadata().GetName()
		}
		remedy := ": stop the container before removing or force remove"
		if c.State == sandbox.ContainerPaused {
			remedy = " and must be unpaused first"
		}
		return nil, failf(errdefs.ErrFailedPrecondition, "cannot remove container %q: container is %s%s", name, state, remedy)
	}
	if err := s.stoppedByPerson(c); err != nil {
		return nil, err
	}
	if err := s.remove(ctx, c, removal{volumes: req.GetVolumes(), force: req.GetForce()}); err != nil {
		return nil, err
	}
	return &nodev1.RemoveResponse{}, nil
}

// removal says how a container is removed.
type removal struct {
	// volumes removes its anonymous volumes too; one that removes itself takes
	// them along anyway.
	volumes bool
	// force kills it where it runs, which is refused otherwise.
	force bool
}

// remove removes a container whole. Callers of one container share one removal,
// which goes on when they leave.
func (s *Server) remove(ctx context.Context, c sandbox.Container, how removal) error {
	done := s.removals.DoChan(c.ID, func() (any, error) {
		ended := make(chan error, 1)
		if !s.goBackground(func(context.Context) { ended <- s.removeNow(context.WithoutCancel(ctx), c, how) }) {
			return nil, failf(errdefs.ErrUnavailable, "the agent is stopping")
		}
		if err := <-ended; err != nil {
			return nil, fmt.Errorf("remove container %s: %w", c.ID, err)
		}
		return nil, nil
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removeNow is remove for the one who does it. What an earlier one left undone
// after the container was gone is done.
func (s *Server) removeNow(ctx context.Context, c sandbox.Container, how removal) error {
	ctx, unbind := s.bound(ctx)
	defer unbind()
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	var anonymous []string
	if spec := s.specOf(c); how.volumes || spec.GetAutoRemove() {
		anonymous = anonymousVolumes(spec)
	}
	there, err := s.endToRemove(ctx, c, how.force)
	if err != nil {
		return err
	}
	// What is noted of volumes is theirs alone once the container is gone.
	gone, err := s.volumes.Leave(anonymous)
	if err != nil {
		return err
	}
	if err := s.sandboxes.RemoveContainer(ctx, c.ID); err != nil {
		gone() // they stay, as it does
		return err
	}
	if c.Owner != sandbox.OwnerNodectl {
		return nil
	}
	if there {
		s.emitContainer("destroy", c)
	}
	s.forget(c.ID)
	return s.removeRest(ctx, c, anonymous, gone)
}

// removeRest removes the pod of a container that is gone, and its volumes. Where
// that fails, and where the agent is killed, the next one finds the pod empty and
// the volumes noted.
func (s *Server) removeRest(ctx context.Context, c sandbox.Container, volumes []string, gone func()) error {
	if err := failpoint.Inject(ctx, "nodectl.remove.rest"); err != nil {
		return err
	}
	if err := s.discardPod(ctx, c.PodID); err != nil {
		return err
	}
	if err := failpoint.Inject(ctx, "nodectl.remove.volumes"); err != nil {
		return err
	}
	err := s.removeAnonymous(volumes)
	if err == nil {
		gone()
	}
	return err
}

// endToRemove kills a container that runs, so that its end is told of before
// its removal, and says whether it is there.
func (s *Server) endToRemove(ctx context.Context, c sandbox.Container, force bool) (there bool, err error) {
	now, err := s.sandboxes.Container(c.ID)
	if err != nil {
		return false, nil
	}
	if running(now) && !force {
		return true, failf(errdefs.ErrFailedPrecondition, "container %s has been started meanwhile", c.ID)
	}
	if c.Owner != sandbox.OwnerNodectl {
		return true, nil
	}
	if running(now) {
		s.emitContainer("kill", c, "signal", signalText("SIGKILL"))
		if err := s.sandboxes.StopContainer(ctx, c.ID, 0); err != nil {
			return true, err
		}
		if now, err = s.sandboxes.Container(c.ID); err != nil {
			return false, nil
		}
	}
	s.tellEnd(now)
	return true, nil
}

// discardPod removes a nodectl pod with all that is in it, and the files made
// for it. One that is gone already is no error.
func (s *Server) discardPod(ctx context.Context, podID string) error {
	pod, err := s.sandboxes.Pod(podID)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.sandboxes.StopPod(ctx, podID); err != nil {
		return fmt.Errorf("stop pod %s: %w", podID, err)
	}
	if err := s.sandboxes.RemovePod(ctx, podID); err != nil {
		return fmt.Errorf("remove pod %s: %w", podID, err)
	}
	s.ofPod.Delete(podID)
	s.mu.Lock()
	delete(s.specs, podID)
	s.mu.Unlock()
	s.runsMu.Lock()
	delete(s.runs, podKey(pod))
	s.runsMu.Unlock()
	return s.files.remove(podKey(pod))
}

// The pauses before a removal that failed is tried again.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// removeLogged removes a container that removes itself. A removal that fails
// is tried again in the background until it succeeds.
func (s *Server) removeLogged(ctx context.Context, c sandbox.Container) {
	err := s.remove(ctx, c, removal{volumes: true, force: true})
	if err == nil || ctx.Err() != nil {
		return
	}
	logrus.WithError(err).WithField("container", c.ID).Warn("automatic removal failed, and is tried again")
	s.goBackground(func(ctx context.Context) {
		timer := time.NewTimer(firstRetry)
		defer timer.Stop()
		for pause := firstRetry; ; {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			if s.remove(ctx, c, removal{volumes: true, force: true}) == nil {
				return
			}
			pause = min(2*pause, lastRetry)
			timer.Reset(pause)
		}
	})
}
