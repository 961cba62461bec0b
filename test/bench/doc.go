// Package bench measures what a pod costs, in time and in memory, here and in containerd with runc, in one run on one
// machine. It runs only with NODEAGENT_TEST_BENCH=yes, in a network namespace of its own (`make bench-pods`), so that
// what CNI plugins leave behind goes with it.
package bench

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// median returns the middle of the durations, the mean of the two middle ones for an even number; zero for none.
func median(durations []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// runtimeBytes adds up the proportional set size, in bytes, of a runtime's own processes: those whose command line
// names its folder, and what they run that is not the workload. It returns how many processes these were.
func runtimeBytes(dir, workload string) (bytes int64, processes int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0, err
	}
	own := map[int]bool{}
	parents := map[int]int{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		parents[pid] = parentOf(pid)
		if strings.Contains(string(cmdline), dir) {
			own[pid] = true
		}
	}
	for pid, parent := range parents {
		if own[pid] || !own[parent] {
			continue
		}
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if strings.TrimSpace(string(comm)) != workload {
			own[pid] = true
		}
	}
	for pid := range own {
		pss, err := proportionalSetSize(pid)
		if err != nil {
			continue // it has ended
		}
		bytes += pss
		processes++
	}
	return bytes, processes, nil
}

func parentOf(pid int) int {
	return int(statusField(fmt.Sprintf("/proc/%d/status", pid), "PPid:"))
}

func proportionalSetSize(pid int) (int64, error) {
	path := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	if _, err := os.ReadFile(path); err != nil {
		return 0, err
	}
	return statusField(path, "Pss:") << 10, nil
}

// statusField reads the first number of a line of the files that proc(5) shows as name and value.
func statusField(path, name string) int64 {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if fields := strings.Fields(rest); len(fields) > 0 {
				n, _ := strconv.ParseInt(fields[0], 10, 64)
				return n
			}
		}
	}
	return 0
}
