// Package leak tells what is on the machine that was not there before: mounts, network namespaces, links, addresses,
// routes, packet filter rules, cgroups, processes, files in shared folders and open descriptors. Tests and the demo use
// it to show that nothing of theirs stays behind.
package leak

import (
	"fmt"
	"sort"
	"strings"
)

// Snapshot counts the things found, each by a line that names its kind first.
type Snapshot map[string]int

// Take reads everything there is to compare. It takes some milliseconds and changes nothing. Without root some of the
// machine cannot be read, and it fails.
func Take() (Snapshot, error) {
	found := Snapshot{}
	for _, part := range []struct {
		name string
		read func() ([]string, error)
	}{
		{"mount", mounts}, {"network namespace", namespaces}, {"link", links}, {"address", addresses}, {"route", routes},
		{"packet filter", rules}, {"cgroup", cgroupDirs}, {"process", processes}, {"file", sharedFiles}, {"descriptor", descriptors},
	} {
		lines, err := part.read()
		if err != nil {
			return nil, fmt.Errorf("look for each %s: %w", part.name, err)
		}
		for _, line := range lines {
			found[part.name+": "+line]++
		}
	}
	return found, nil
}

// Newer returns, sorted, what the later snapshot has more of. Lines that contain one of the ignored strings are left
// out; an empty result means that nothing was added.
func (s Snapshot) Newer(later Snapshot, ignored ...string) []string {
	var lines []string
next:
	for line, count := range later {
		for _, text := range ignored {
			if strings.Contains(line, text) {
				continue next
			}
		}
		if more := count - s[line]; more > 0 {
			lines = append(lines, fmt.Sprintf("%s (%d more)", line, more))
		}
	}
	sort.Strings(lines)
	return lines
}
