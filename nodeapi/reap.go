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

// emptyPods are those of nodectl whose container was never made, because the
// agent was killed in between. It is asked before the server serves.
func (s *Server) emptyPods() []string {
	used := map[string]bool{}
	for _, c := range s.sandboxes.Containers() {
		used[c.PodID] = true
	}
	var empty []string
	for _, pod := range s.sandboxes.Pods() {
		if pod.Owner == sandbox.OwnerNodectl && !used[pod.ID] {
			empty = append(empty, pod.ID)
		}
	}
	return empty
}

// discardPods removes pods and their files.
func (s *Server) discardPods(ctx context.Context, pods []string) {
	for _, id := range pods {
		if err := s.discardPod(ctx, id); err != nil && ctx.Err() == nil {
			logrus.WithError(err).WithField("pod", id).Warn("cannot remove an empty pod of nodectl")
		}
	}
}
