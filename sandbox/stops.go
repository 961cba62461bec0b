package sandbox

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/nodeagent/nodeagent/internal/blocked"
)

// Bounds of what is looked at of a container that does not end.
const (
	maxHanging = 16
	// hangingTimeout is how long that may take: the path that a process
	// hangs in is read from its memory, which may hang too.
	hangingTimeout = time.Second
	// maxLooks is how many looks may hang, each of which holds a thread.
	maxLooks = 8
)

// stops lists the stops under way as operations. They are none: who asked may
// have given up, and they go on until the container has ended.
func (m *Manager) stops(inWhat bool) []Operation {
	var list []Operation
	for _, c := range m.runningContainers() {
		c.mu.Lock()
		stop := c.stop
		c.mu.Unlock()
		if stop == nil {
			continue
		}
		s := c.get()
		op := Operation{
			Verb: "stop container", What: "stop container " + s.ID, PodID: s.PodID, ContainerID: s.ID,
			Began: stop.began, By: stop.by,
		}
		op.Stage, op.Since, op.Killed = stop.stage(s.StopSignal)
		if inWhat {
			op.Waits = m.hanging(s.CgroupPath)
		}
		list = append(list, op)
	}
	return list
}

// stage says which signal it waits to be obeyed, since when, and whether that
// is SIGKILL.
func (s *stopping) stage(signal string) (stage string, since time.Time, killed bool) {
	s.mu.Lock()
	deadline := s.deadline
	s.mu.Unlock()
	switch {
	case !s.gentle:
		return "SIGKILL sent", s.began, true
	case time.Now().After(deadline):
		return "SIGKILL sent", deadline, true
	}
	sig, err := parseSignal(signal)
	if err != nil {
		sig = syscall.SIGTERM
	}
	return signalName(sig) + " sent", s.began, false
}

// hanging says which processes of a cgroup wait in the kernel, so that not
// even SIGKILL ends them. What does not answer in time is given up; its
// goroutine ends with what it hangs in.
func (m *Manager) hanging(path string) []string {
	pids, err := m.deps.Cgroups.Procs(path)
	if err != nil {
		return nil
	}
	if m.looks.Add(1) > maxLooks {
		m.looks.Add(-1)
		return []string{"processes that are not looked at, since earlier looks hang"}
	}
	done := make(chan []string, 1)
	go func() {
		defer m.looks.Add(-1)
		var waits []string
		for _, pid := range pids[:min(len(pids), maxHanging)] {
			for _, t := range blocked.Threads(pid) {
				if t.State == "D" || t.Where != "" && t.Where != "0" {
					waits = append(waits, fmt.Sprintf("process %d%s: %s", pid, comm(pid), t))
				}
			}
		}
		done <- waits
	}()
	timer := time.NewTimer(hangingTimeout)
	defer timer.Stop()
	select {
	case waits := <-done:
		return waits
	case <-timer.C:
		return []string{"processes of it that cannot be looked at"}
	}
}

// comm is a process's name in parentheses, with a blank before.
func comm(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (%s)", strings.ToValidUTF8(strings.TrimSpace(string(text)), "?"))
}
