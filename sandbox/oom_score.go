package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/undo"
)

// rescore is the step that gives the processes of a container another
// oom_score_adj. Those that have chosen one of their own keep it. It is taken
// back by endUpdate.
func (m *Manager) rescore(s *containerState, from, to int64) undo.Step {
	return undo.Step{
		Name:  "oomscore",
		Plain: true,
		Do: func(context.Context) error {
			if err := m.setScores(s.CgroupPath, from, to); err != nil {
				return fmt.Errorf("linux.oom_score_adj: %w", err)
			}
			return nil
		},
	}
}

// setScores turns the score of all processes there are. Children have their
// parent's, so that it is repeated until no process is new.
func (m *Manager) setScores(path string, from, to int64) error {
	if from == to {
		return nil
	}
	for seen := map[int]bool{}; ; {
		pids, err := m.deps.Cgroups.Procs(path)
		if err != nil {
			return err
		}
		before := len(seen)
		for _, pid := range pids {
			if seen[pid] {
				continue
			}
			seen[pid] = true
			if err := m.setScore(path, pid, from, to); err != nil {
				return err
			}
		}
		if len(seen) == before {
			return nil
		}
	}
}

func (m *Manager) setScore(path string, pid int, from, to int64) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), os.O_RDWR, 0)
	if err != nil {
		return ignoreEnded(err)
	}
	defer f.Close()
	// The file stays that of the process; its number may have been another's
	// already when it was opened.
	if pids, err := m.deps.Cgroups.Procs(path); err != nil || !slices.Contains(pids, pid) {
		return err
	}
	var text [16]byte
	n, err := f.Read(text[:])
	if err != nil {
		return ignoreEnded(err)
	}
	if have, err := strconv.ParseInt(strings.TrimSpace(string(text[:n])), 10, 64); err != nil || have != from {
		return err
	}
	_, err = f.WriteAt(strconv.AppendInt(nil, to, 10), 0)
	if errors.Is(err, fs.ErrPermission) {
		// Without CAP_SYS_RESOURCE none can be lowered. A container that
		// starts gets the least there is then, which this one has.
		m.log.Warnf("process %d keeps the oom_score_adj %d, which cannot be lowered to %d", pid, from, to)
		return nil
	}
	return ignoreEnded(err)
}

// ignoreEnded drops the errors of a process that has ended.
func ignoreEnded(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
