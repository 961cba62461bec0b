package nodeapi

import (
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// healthName is the record of a container's health, in its folder below
	// state: a reboot voids it, as it ends the run it is about.
	healthName = "health.json"
	// maxHealthRecord bounds it, in bytes. Output may take six bytes for each
	// in JSON.
	maxHealthRecord = 8*maxHealthLog*maxHealthOutput + 4096
)

// healthRecord is what outlives the agent of a container's health.
type healthRecord struct {
	// Begun is when the run that it is about was started.
	Begun  time.Time
	Status string
	Streak int64
	Log    []healthRun
}

// healthRun is one run of a check.
type healthRun struct {
	Start, End time.Time
	ExitCode   int32
	Output     string
}

func (f files) health(key string) string { return filepath.Join(f.state, key, healthName) }

// record is a container's health as it is kept on disk.
func (h *health) record() healthRecord {
	status, streak, log := h.state()
	r := healthRecord{Begun: h.begun, Status: status, Streak: streak}
	for _, run := range log {
		r.Log = append(r.Log, healthRun{
			Start: run.GetStart().AsTime(), End: run.GetEnd().AsTime(), ExitCode: run.GetExitCode(), Output: run.GetOutput(),
		})
	}
	return r
}

// restore takes up what an earlier agent knew of the same run.
func (h *health) restore(r healthRecord) {
	if !r.Begun.Equal(h.begun) || r.Status == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status, h.streak, h.log = r.Status, r.Streak, nil
	for _, run := range r.Log {
		h.log = append(h.log, &nodev1.HealthLog{
			Start: timestamppb.New(run.Start), End: timestamppb.New(run.End), ExitCode: run.ExitCode, Output: run.Output,
		})
	}
}

// keepHealth writes down a container's health, for the next agent.
func (s *Server) keepHealth(c sandbox.Container, h *health) {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil {
		return // it is being removed
	}
	data, err := json.Marshal(h.record())
	if err == nil {
		err = atomicfile.Write(s.files.health(podKey(pod)), data, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.warnOf(c, err, "keep its health")
	}
}

// restoreHealth gives a container's health what an earlier agent knew.
func (s *Server) restoreHealth(c sandbox.Container, h *health) {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil {
		return
	}
	var r healthRecord
	data, err := atomicfile.Read(s.files.health(podKey(pod)), maxHealthRecord)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil {
		h.restore(r)
	} else if !errors.Is(err, fs.ErrNotExist) {
		s.warnOf(c, err, "read its health")
	}
}

// knownHealth is a container's health, also as an earlier agent left it while
// upkeep has not come to the container yet.
func (s *Server) knownHealth(c sandbox.Container) *health {
	if h := s.healthOf(c.ID); h != nil || c.StartedAt.IsZero() {
		return h
	}
	h := &health{begun: c.StartedAt}
	s.restoreHealth(c, h)
	return h
}

// recallHealth makes the last health of a container that does not run known.
func (s *Server) recallHealth(c sandbox.Container) {
	check := s.specOf(c).GetHealth()
	if !hasCheck(check) || c.StartedAt.IsZero() {
		return
	}
	h := &health{check: check, cancel: func() {}, begun: c.StartedAt}
	s.restoreHealth(c, h)
	if status, _, _ := h.state(); status == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kept(c.ID); k.health == nil {
		k.health = h
	}
}
