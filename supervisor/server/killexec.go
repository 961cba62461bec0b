package server

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor/server/pidfd"
)

// KillExec kills an exec and everything it started: its descendants, and the
// processes of its session, and of sessions that they made, whose parents are
// gone. A process that left all of these before cannot be told from the
// container's own.
func (s *Server) KillExec(ctx context.Context, req *v1.ExecIDRequest) (*v1.Empty, error) {
	c, e, err := s.findExec(ctx, req.ContainerId, req.ExecId)
	if err != nil {
		return nil, fmt.Errorf("kill %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	k := execKill{paths: c.record.Cgroups, root: e.proc.PID(), startTime: e.startTime,
		seen: map[int]uint64{}, sessions: map[int]bool{e.proc.PID(): true}}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := k.round()
		if err != nil {
			return nil, fmt.Errorf("kill exec %s in container %s: %w", req.ExecId, c.id, err)
		}
		if left == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("kill exec %s in container %s: %d processes survive: %w", req.ExecId, c.id, left, ctx.Err())
		}
	}
	// It may have left the cgroups; and until it is waited for, the container's own ps shows it.
	_ = e.proc.Signal(unix.SIGKILL)
	select {
	case <-e.done:
		return &v1.Empty{}, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("kill exec %s in container %s: wait for its end: %w", req.ExecId, c.id, ctx.Err())
	}
}

// execKill is the killing of one exec's processes.
type execKill struct {
	paths map[string]string
	// root leads the exec's session; with startTime it is named for good.
	root      int
	startTime uint64
	// seen are processes found to belong to the exec, by start time: their
	// children belong to it even after their end.
	seen map[int]uint64
	// sessions are those of processes found. A process cannot join the
	// session of another, so whoever is in one belongs to the exec.
	sessions map[int]bool
}

// round stops all processes of the exec first, so that none forks while they
// are looked for, then kills them, and returns how many there were.
func (k *execKill) round() (int, error) {
	stopped := map[int]bool{}
	for {
		found, err := k.find()
		if err != nil {
			return 0, err
		}
		fresh := false
		for _, p := range found {
			if !stopped[p.PID] {
				fresh = true
				stopped[p.PID] = true
				signalOne(p, unix.SIGSTOP)
			}
		}
		if fresh {
			continue
		}
		for _, p := range found {
			signalOne(p, unix.SIGKILL)
		}
		thaw(k.paths)
		return len(found), nil
	}
}

// signalOne signals a process, and no other that has its number by now.
func signalOne(p pidfd.Stat, sig syscall.Signal) {
	if proc := holdProcess(p.PID, p.StartTime); proc != nil {
		_ = proc.Signal(sig)
		proc.Close()
	}
}

// find returns the living processes that belong to the exec.
func (k *execKill) find() ([]pidfd.Stat, error) {
	pids, err := procsOf(k.paths)
	if err != nil {
		return nil, err
	}
	all := map[int]pidfd.Stat{}
	for _, pid := range pids {
		// One that is gone meanwhile needs no killing.
		if st, err := pidfd.ReadStat(pid); err == nil {
			all[pid] = st
		}
	}
	if leader, ok := all[k.root]; ok && leader.StartTime != k.startTime {
		// Another process has its number, and may lead a session of that.
		delete(k.sessions, k.root)
	}
	var found []pidfd.Stat
	for _, st := range all {
		if k.belongs(st, all, 0) && st.State != 'Z' && st.State != 'X' {
			k.seen[st.PID] = st.StartTime
			k.sessions[st.Session] = true
			found = append(found, st)
		}
	}
	return found, nil
}

// maxDepth bounds a walk up the parents, which change while they are read.
const maxDepth = 1 << 10

func (k *execKill) belongs(st pidfd.Stat, all map[int]pidfd.Stat, depth int) bool {
	if depth > maxDepth {
		return false
	}
	if start, ok := k.seen[st.PID]; ok && start == st.StartTime {
		return true
	}
	// No process older than the exec can be its own, whatever number it has.
	if st.StartTime < k.startTime {
		return false
	}
	if st.PID == k.root && st.StartTime == k.startTime || k.sessions[st.Session] {
		return true
	}
	parent, ok := all[st.Parent]
	return ok && k.belongs(parent, all, depth+1)
}
