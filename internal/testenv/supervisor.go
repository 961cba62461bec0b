package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Supervisor is the process ID of the agent's supervisor; without one the test ends.
func (a *AgentProcess) Supervisor() int {
	a.t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		a.t.Fatal(err)
	}
	var found, parents []int
	for _, path := range paths {
		text, err := os.ReadFile(path)
		program, rest, _ := strings.Cut(string(text), "\x00")
		if err != nil || filepath.Base(program) != "nodesupervisor" || !strings.Contains(rest, a.State) {
			continue
		}
		var pid, parent int
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(path), "stat"))
		_, after, _ := strings.Cut(string(stat), ") ")
		if _, serr := fmt.Sscanf(after, "%1s %d", new(string), &parent); err != nil || serr != nil {
			continue
		}
		_, _ = fmt.Sscanf(path, "/proc/%d/", &pid)
		found, parents = append(found, pid), append(parents, parent)
	}
	for i, pid := range found {
		// What it is about to start another program in looks like it, and is its child.
		if !slices.Contains(found, parents[i]) {
			return pid
		}
	}
	a.t.Fatal("the agent has no supervisor")
	return 0
}
