package server

import (
	"time"

	"github.com/sirupsen/logrus"

	"github.com/nodeagent/nodeagent/supervisor"
	"github.com/nodeagent/nodeagent/supervisor/server/oomwatch"
)

// watchOOM tells of what the OOM killer kills in a container, beyond the kills
// that are known, until stop is called. That waits for the watch to end, and
// tells of what it has not told yet: so an EventOOM comes before the EventExit
// or not at all. A container that cannot be watched has that last look alone.
// stop is told whether the container failed, and tells how many kills there were.
func (s *Server) watchOOM(c *container, known uint64) (stop func(failed bool) uint64) {
	paths := c.record.Cgroups
	tell := func(kills uint64) {
		s.events.publish(supervisor.Event{Type: supervisor.EventOOM, ID: c.id, Kills: kills, At: time.Now()})
	}
	last := func(failed bool) uint64 {
		n := s.ledger.Leave(paths, known, failed)
		if n > known {
			tell(n - known)
		}
		return n
	}
	unwatched := func(err error) {
		logrus.WithField("container", c.id).WithError(err).Debug("the OOM killer is not watched")
	}
	w, err := oomwatch.Open(paths)
	if err != nil {
		unwatched(err)
		return last
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var err error
		if known, err = w.Run(known, tell); err != nil {
			unwatched(err)
		}
	}()
	return func(failed bool) uint64 {
		w.Close()
		<-done
		return last(failed)
	}
}
