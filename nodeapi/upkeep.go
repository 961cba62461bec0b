package nodeapi

import (
	"context"

	"github.com/nodeagent/nodeagent/sandbox"
)

// upkeep does what containers need that nobody asks for, until ctx is done:
// it tells of what happens to them, starts those again that their policy
// says so of, checks the health of those that run, and removes those that
// remove themselves. What happened while no agent ran is caught up with first.
// A subscription that was dropped is renewed, and everything looked at again.
func (s *Server) upkeep(ctx context.Context) {
	for first := true; ctx.Err() == nil; first = false {
		changes, cancel := s.sandboxes.Subscribe()
		for _, c := range s.sandboxes.Containers() {
			s.catchUp(c, first)
		}
		s.followChanges(ctx, changes)
		cancel()
	}
}

// catchUp brings one container to where it should be.
func (s *Server) catchUp(c sandbox.Container, first bool) {
	if c.Owner != sandbox.OwnerNodectl {
		return
	}
	switch c.State {
	case sandbox.ContainerRunning, sandbox.ContainerPaused:
		if first {
			s.forgetResume(c)
			s.tellLostStart(c)
		} else {
			s.tellStart(c)
		}
		s.watchHealth(c)
		s.tellLostOOM(c)
	case sandbox.ContainerExited:
		if first {
			// Its end was an earlier agent's to tell, unless that one was
			// killed before it.
			if s.noteEnd(c) {
				s.emitLost(c)
			}
			s.recallHealth(c)
		} else if s.noteEnd(c) {
			s.emitEnd(c)
		}
		s.afterEnd(c, first)
	}
}

// followChanges acts on each change until the subscription is dropped or ctx
// is done.
func (s *Server) followChanges(ctx context.Context, changes <-chan sandbox.Event) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-changes:
			if !ok {
				return
			}
			if e.Container != nil {
				s.changed(e, *e.Container)
			}
		}
	}
}

// changed acts on one change of a container.
func (s *Server) changed(e sandbox.Event, c sandbox.Container) {
	if c.Owner != sandbox.OwnerNodectl || !s.isThere(c) {
		return // who removed it has told
	}
	switch e.Type {
	case sandbox.EventStarted:
		s.tellStart(c)
		s.watchHealth(c)
	case sandbox.EventOOM:
		s.tellOOM(c)
	case sandbox.EventStopped:
		s.tellEnd(c)
		s.afterEnd(c, false)
	}
}

// tellEnd tells of the end of a container, once for each. Who stopped it calls
// it too, so that what they tell comes after it.
func (s *Server) tellEnd(c sandbox.Container) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if c.State != sandbox.ContainerExited || !s.isThere(c) || !s.noteEnd(c) {
		return
	}
	s.emitEnd(c)
	s.emitUses("unmount", c)
	s.emitNetworks("disconnect", c)
}

// isThere says whether a container was not removed since: what is remembered of
// one that was is forgotten, and all of it told.
func (s *Server) isThere(c sandbox.Container) bool {
	_, err := s.sandboxes.Container(c.ID)
	return err == nil
}

// noteEnd says whether the end of a container is news.
func (s *Server) noteEnd(c sandbox.Container) bool {
	if c.Owner != sandbox.OwnerNodectl {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept(c.ID)
	if k.ended.Equal(c.FinishedAt) {
		return false
	}
	k.ended = c.FinishedAt
	return true
}

// afterEnd starts a container that ended again, or removes it, where that is
// wanted.
func (s *Server) afterEnd(c sandbox.Container, first bool) {
	if c.State != sandbox.ContainerExited {
		return
	}
	s.endHealth(c.ID)
	s.unmountVolumes(c)
	if s.restartLater(c, first) {
		return
	}
	s.reapOne(c)
}

// forget lets go of what is remembered of a container that is gone.
func (s *Server) forget(id string) {
	s.cancelRestart(id)
	s.endHealth(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keeps, id)
}
