package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/supervisor"
)

// What the recorder is told. Each of these is a few hundred nanoseconds for
// the caller: the recorder writes in a goroutine of its own.

// notePod introduces a pod that is about to be made.
func (m *Manager) notePod(s *podState) {
	meta := s.Config.GetMetadata()
	m.deps.Recorder.Note(recorder.Entry{Kind: recorder.KindMade, Pod: s.ID, Names: &recorder.Names{
		Namespace: meta.GetNamespace(), Pod: meta.GetName(), Attempt: meta.GetAttempt(), Owner: string(s.Owner),
	}})
}

// noteContainer introduces a container that is about to be made.
func (m *Manager) noteContainer(s *containerState, pod *podState) {
	meta := pod.Config.GetMetadata()
	m.deps.Recorder.Note(recorder.Entry{Kind: recorder.KindMade, Pod: pod.ID, Container: s.ID, Names: &recorder.Names{
		Namespace: meta.GetNamespace(), Pod: meta.GetName(), Container: s.Config.GetMetadata().GetName(),
		Attempt: s.Config.GetMetadata().GetAttempt(), Image: cmp.Or(s.Config.GetImage().GetUserSpecifiedImage(), s.ImageRef), Owner: string(s.Owner),
	}})
}

// noteOperation tells of an operation that has just ended.
func (m *Manager) noteOperation(op *operation) {
	op.at("") // closes the last step
	op.mu.Lock()
	e := recorder.Entry{
		Kind: recorder.KindOperation, At: op.began, Took: time.Since(op.began), What: op.verb, By: op.by,
		Pod: op.pod, Container: op.container, Steps: op.steps, Within: op.within,
		Error: recorder.Words(op.err),
	}
	op.mu.Unlock()
	m.deps.Recorder.Note(e)
}

// noteSignal tells of a signal that was sent, or could not be. at is before it
// was, since the container may end before the answer comes.
func (m *Manager) noteSignal(s *containerState, sig syscall.Signal, at time.Time, by string, err error) {
	m.deps.Recorder.Note(recorder.Entry{
		Kind: recorder.KindSignal, At: at, Pod: s.PodID, Container: s.ID, What: signalName(sig), By: by, Error: recorder.Words(err),
	})
}

// noteExit tells how a container ended, what it used while its cgroup is
// there, and what it wrote last while its log is.
func (m *Manager) noteExit(ctx context.Context, s *containerState, exit supervisor.Exit) {
	if m.deps.Recorder == nil {
		return
	}
	e := &recorder.Exit{Code: s.ExitCode, Reason: s.Reason, OOMKilled: exit.OOMKilled, Log: lastLines(s.LogPath)}
	if exit.Signal != 0 {
		e.Signal = signalName(exit.Signal)
	}
	if !s.StartedAt.IsZero() {
		e.Ran = s.FinishedAt.Sub(s.StartedAt)
	}
	if stats, err := m.deps.Cgroups.Stats(ctx, s.CgroupPath); err == nil {
		e.Usage = UsageOf(stats)
	} else if limit := s.Config.GetLinux().GetResources().GetMemoryLimitInBytes(); limit > 0 {
		// It may be gone already: after a restart, and where systemd removes it.
		e.Usage.MemoryLimit = uint64(limit)
	}
	m.deps.Recorder.Note(recorder.Entry{
		Kind: recorder.KindExit, At: s.FinishedAt, Pod: s.PodID, Container: s.ID, Exit: e, Error: recorder.Plain(s.Message),
	})
}

// UsageOf picks from a reading of a container's cgroup what tells why it is
// slow, or was killed.
func UsageOf(stats *cgroups.Stats) recorder.Usage {
	var u recorder.Usage
	if stats == nil {
		return u
	}
	if memory := stats.Memory; memory != nil {
		u.MemoryPeak, u.MemoryLimit, u.OOMKills = memory.MaxUsage, memory.Limit, memory.OOMKills
	}
	if cpu := stats.CPU; cpu != nil {
		u.CPU, u.Throttled = time.Duration(cpu.UsageNanos), time.Duration(cpu.ThrottledNanos)
		u.Periods, u.ThrottledPeriods = cpu.Periods, cpu.ThrottledPeriods
	}
	if pids := stats.Pids; pids != nil {
		u.PIDsLimit, u.PIDsRefused = pids.Limit, pids.Refused
	}
	return u
}

// tailBytes is how much of a log's end is looked at.
const tailBytes = 4 << 10

// lastLines gives the last lines of a container's log, as they are there, the
// oldest first; none of what cannot be read.
func lastLines(path string) []string {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	start := max(0, info.Size()-tailBytes)
	tail, err := io.ReadAll(io.NewSectionReader(f, start, tailBytes))
	if err != nil {
		return nil
	}
	if start > 0 {
		_, tail, _ = bytes.Cut(tail, []byte("\n"))
	}
	text := strings.TrimRight(string(tail), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// noteAgent tells of what concerns all pods.
func (m *Manager) noteAgent(text string) {
	m.deps.Recorder.Note(recorder.Entry{Kind: recorder.KindAgent, Text: text})
}

// noteSlow tells of an operation that does not end.
func (m *Manager) noteSlow(op *operation, state Operation) (noted bool) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if op.stage == "" {
		return false // its end is told already, or is about to be
	}
	m.deps.Recorder.Note(recorder.Entry{
		Kind: recorder.KindSlow, Pod: state.PodID, Container: state.ContainerID, What: state.Verb, By: op.by,
		Took: time.Since(op.began),
		Text: fmt.Sprintf("at stage %q for %s, blocked in %s", state.Stage, time.Since(state.Since).Round(time.Second), state.blockedIn()),
	})
	return true
}
