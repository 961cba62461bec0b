package pidfd

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// Stat is what /proc/PID/stat says of a process.
type Stat struct {
	PID, Parent, Session int
	// State is the kernel's letter, such as 'Z' for a zombie.
	State byte
	// StartTime is in clock ticks since boot; together with the process
	// ID it names a process for good.
	StartTime uint64
	// ExitStatus is the wait status of a zombie.
	ExitStatus syscall.WaitStatus
}

// ReadStat reads the stat file of a process.
func ReadStat(pid int) (Stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Stat{}, err
	}
	s, err := parseStat(data)
	if err != nil {
		return Stat{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return s, nil
}

// parseStat parses proc_pid_stat(5). The name in parentheses may hold anything,
// parentheses too, so the fields are counted from the last one.
func parseStat(data []byte) (Stat, error) {
	malformed := fmt.Errorf("malformed stat %q", data)
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 1 || end < open {
		return Stat{}, malformed
	}
	fields := bytes.Fields(data[end+1:])
	if len(fields) < 50 || len(fields[0]) != 1 {
		return Stat{}, malformed
	}
	var s Stat
	s.State = fields[0][0]
	for _, f := range []struct {
		text []byte
		into *int
	}{
		{bytes.TrimSpace(data[:open]), &s.PID},
		{fields[1], &s.Parent},
		{fields[3], &s.Session},
	} {
		n, err := strconv.Atoi(string(f.text))
		if err != nil {
			return Stat{}, malformed
		}
		*f.into = n
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return Stat{}, malformed
	}
	s.StartTime = start
	status, err := strconv.ParseUint(string(fields[49]), 10, 32)
	if err != nil {
		return Stat{}, malformed
	}
	s.ExitStatus = syscall.WaitStatus(status)
	return s, nil
}
