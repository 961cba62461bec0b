package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/nodeagent/nodeagent/supervisor"
	"github.com/nodeagent/nodeagent/supervisor/server/logfile"
	"github.com/nodeagent/nodeagent/supervisor/server/oomwatch"
	"github.com/nodeagent/nodeagent/supervisor/server/pidfd"
	"github.com/nodeagent/nodeagent/supervisor/server/stdio"
)

// adopt takes over what another supervisor left in the state directory. What
// can be assumed: records are whole, since they were renamed into place; a
// record without a process ID belongs to a start that nobody was told of; a
// process whose number and start time match is the one recorded. One bad
// container never keeps the others from being adopted.
func (s *Server) adopt() {
	for _, id := range s.recorded("records") {
		log := logrus.WithField("container", id)
		var rec record
		err := readJSON(s.recordPath(id), &rec)
		if err == nil && rec.ID != id {
			err = errors.New("record of another container")
		}
		if err == nil {
			err = s.adoptContainer(rec)
		}
		if err != nil {
			log.WithError(err).Error("adopt container")
		}
	}
	s.removeUnrecorded()
	for _, id := range s.recorded("podinits") {
		s.adoptPodInit(id)
	}
}

// recorded lists the IDs that a directory of records has.
func (s *Server) recorded(dir string) []string {
	entries, err := os.ReadDir(s.dir(dir))
	if err != nil {
		logrus.WithError(err).Error("adopt")
	}
	var ids []string
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			// What a write that was cut off left.
			os.Remove(filepath.Join(s.dir(dir), e.Name()))
			continue
		}
		if validID(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *Server) adoptContainer(rec record) error {
	if rec.PID == 0 {
		logrus.WithField("container", rec.ID).Warn("remove a start that was cut off")
		if err := killCgroups(context.Background(), rec.Cgroups); err != nil {
			return err
		}
		return s.destroy(rec)
	}
	c := newContainer(rec.ID)
	c.record = rec
	c.status = supervisor.StatusRunning
	var exit supervisor.Exit
	err := readJSON(s.exitPath(rec.ID), &exit)
	if err == nil {
		c.status, c.exit = supervisor.StatusStopped, &exit
		close(c.ended)
		s.add(c)
		if rec.SharedPID {
			// The one before may have been killed before it did.
			return killCgroups(context.Background(), rec.Cgroups)
		}
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	c.proc = holdProcess(rec.PID, rec.StartTime)
	if err := s.adoptStreams(c); err != nil {
		logrus.WithField("container", c.id).WithError(err).Error("adopt container's streams")
	}
	s.add(c)
	if c.proc == nil {
		s.ended(c, pidfd.Status{}, 0)
		return nil
	}
	if handle, err := s.loaded(c); err == nil {
		if st, err := handle.OCIState(); err == nil && st.Status == "paused" {
			c.status = supervisor.StatusPaused
		}
	}
	s.ledger.Enter(rec.Cgroups)
	go s.watch(c, oomwatch.Kills(rec.Cgroups)) // those were told, or will be with the exit
	return nil
}

func (s *Server) adoptStreams(c *container) error {
	log, err := logfile.Resume(c.record.LogPath)
	if err != nil {
		// Without somebody who reads, the container would stand still.
		logrus.WithField("container", c.id).WithError(err).Error("output is dropped until the log is opened anew")
	}
	c.io, err = stdio.Adopt(s.stdioConfig(c.record, log))
	if err != nil {
		log.Close()
	}
	return err
}

func (s *Server) add(c *container) {
	s.mu.Lock()
	s.containers[c.id] = c
	s.mu.Unlock()
}

// holdProcess takes hold of a process if it is the one recorded and lives.
func holdProcess(pid int, startTime uint64) *pidfd.Process {
	proc, err := pidfd.Open(pid)
	if err != nil {
		return nil
	}
	// Read after the process is held: if this is the right one, so is that.
	stat, err := pidfd.ReadStat(pid)
	if err != nil || stat.StartTime != startTime {
		proc.Close()
		return nil
	}
	return proc
}

// removeUnrecorded removes directories of starts that were cut off before
// their record was written; nothing ran in them.
func (s *Server) removeUnrecorded() {
	for _, dir := range []string{s.root(), s.dir("containers-io")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			logrus.WithError(err).Error("adopt")
			continue
		}
		for _, e := range entries {
			if _, err := os.Lstat(s.recordPath(e.Name())); errors.Is(err, os.ErrNotExist) {
				if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
					logrus.WithError(err).Warn("remove what a start left")
				}
			}
		}
	}
}

func (s *Server) adoptPodInit(id string) {
	log := logrus.WithField("pod", id)
	var rec podInitRecord
	err := readJSON(s.podInitPath(id), &rec)
	if err == nil && rec.ID != id {
		err = fmt.Errorf("record of pod %s", rec.ID)
	}
	if err != nil {
		log.WithError(err).Error("adopt pod init")
		return
	}
	proc := holdProcess(rec.PID, rec.StartTime)
	if proc == nil {
		if err := removeFile(s.podInitPath(id)); err != nil {
			log.WithError(err).Warn("remove pod init record")
		}
		return
	}
	p := &podInit{ready: make(chan struct{}), gone: make(chan struct{}), proc: proc}
	close(p.ready)
	s.mu.Lock()
	s.inits[id] = p
	s.mu.Unlock()
	go s.watchPodInit(id, p)
}
