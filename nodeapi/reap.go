package nodeapi

import (
	"context"

	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
)

// reapOne begins the removal of a container that has ended and removes
// itself, unless somebody still waits for its exit code.
func (s *Server) reapOne(c sandbox.Container) {
	if c.Owner != sandbox.OwnerNodectl || c.State != sandbox.ContainerExited || !s.specOf(c).GetAutoRemove() {
		return
	}
	s.mu.Lock()
	held := s.holds[c.ID] > 0
	s.mu.Unlock()
	if !held {
		s.goBackground(func(ctx context.Context) { s.removeLogged(ctx, c) })
	}
}

// hold keeps a container that removes itself until release is called.
func (s *Server) hold(c sandbox.Container) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[c.ID]++
	return func() {
		s.mu.Lock()
		if s.holds[c.ID]--; s.holds[c.ID] == 0 {
			delete(s.holds, c.ID)
		}
		s.mu.Unlock()
		if now, err := s.sandboxes.Container(c.ID); err == nil {
			s.reapOne(now)
		}
	}
}

// halfMade are the pods of nodectl whose container was never made, or not whole,
// and those whose container is removed already, because the agent was killed in
// between. It is asked before the server serves.
func (s *Server) halfMade() []string {
	used := map[string]bool{}
	for _, c := range s.sandboxes.Containers() {
		used[c.PodID] = true
	}
	var half []string
	for _, pod := range s.sandboxes.Pods() {
		if pod.Owner == sandbox.OwnerNodectl && (!used[pod.ID] || s.files.halfMade(podKey(pod))) {
			half = append(half, pod.ID)
		}
	}
	return half
}

// removeLeft begins to remove what an earlier agent was killed over: containers
// half made or half removed, then the anonymous volumes of those that are gone.
func (s *Server) removeLeft() error {
	volumes, forget, err := s.volumes.Left()
	if err != nil {
		return err
	}
	pods := s.halfMade()
	s.goUnseen(func(ctx context.Context) {
		whole := true
		for _, id := range pods {
			if err := s.discardPod(ctx, id); err != nil {
				whole = false
				s.warnLeft(ctx, err, "pod", id)
			}
		}
		if err := s.removeAnonymous(volumes); err != nil || !whole {
			s.warnLeft(ctx, err, "volumes", volumes)
			return // the next agent tries again
		}
		forget()
	})
	return nil
}

// warnLeft logs what could not be removed, but for an agent that ends.
func (s *Server) warnLeft(ctx context.Context, err error, kind string, which any) {
	if err != nil && ctx.Err() == nil {
		logrus.WithError(err).WithField(kind, which).Warn("cannot remove what is left of a container")
	}
}
