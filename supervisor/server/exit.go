package server

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/nodeagent/nodeagent/supervisor"
	"github.com/nodeagent/nodeagent/supervisor/server/oomwatch"
	"github.com/nodeagent/nodeagent/supervisor/server/pidfd"
	"github.com/nodeagent/nodeagent/supervisor/server/stdio"
)

const (
	// drainPatience is how long processes that outlive a container's init
	// may hold its output open.
	drainPatience = 2 * time.Second
	// reasonLost is the reason of an exit nobody saw, and codeLost its
	// code: never success.
	reasonLost = "SupervisorLost"
	codeLost   = 255
)

// watch waits for a container's init and records its exit, and until then tells
// of what the OOM killer does beyond the kills that are known. It ends with the
// container.
func (s *Server) watch(c *container, kills uint64) {
	stop := s.watchOOM(c, kills)
	status, err := c.proc.Wait()
	kills = stop(err != nil || status != pidfd.Status{Known: true})
	if err != nil {
		logrus.WithField("container", c.id).WithError(err).Error("wait for container")
		status = pidfd.Status{}
	}
	s.ended(c, status, kills)
}

// ended does what follows the end of a container's init, in order: the exit is
// recorded first, as nobody can find it out again, and nobody hears of it
// before the output is in the log. kills is how often the OOM killer is known to
// have killed in it.
func (s *Server) ended(c *container, status pidfd.Status, kills uint64) {
	log := logrus.WithField("container", c.id)
	exit := &supervisor.Exit{Code: status.Code, Signal: status.Signal, At: time.Now()}
	if !status.Known {
		exit.Code, exit.Reason = codeLost, reasonLost
	}
	c.mu.Lock()
	rec, streams, proc := c.record, c.io, c.proc
	c.mu.Unlock()
	exit.OOMKilled = kills > 0 || oomwatch.Kills(rec.Cgroups) > 0
	if err := writeJSON(s.exitPath(c.id), exit); err != nil {
		log.WithError(err).Error("record exit")
	}
	if rec.SharedPID {
		if err := killCgroups(context.Background(), rec.Cgroups); err != nil {
			log.WithError(err).Warn("kill what the container left")
		}
	}
	closeStreams(streams)
	c.mu.Lock()
	c.status = supervisor.StatusStopped
	c.exit = exit
	c.io, c.proc, c.handle, c.execHandle, c.plain = nil, nil, nil, nil, nil
	c.mu.Unlock()
	if proc != nil {
		proc.Close()
	}
	close(c.ended)
	s.events.publish(supervisor.Event{Type: supervisor.EventExit, ID: c.id, Exit: exit})
	s.trim.touch()
}

// closeStreams carries the last output and closes the streams.
func closeStreams(streams *stdio.IO) {
	if streams != nil {
		streams.Drain(drainPatience)
		streams.Close()
	}
}
