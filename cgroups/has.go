package cgroups

import (
	"os"
	"path/filepath"
)

// Has says whether cgroups have one of the files of a controller, by their
// names on v1 and on v2. No name means that there is none.
func (m *Manager) Has(controller string, v1, v2 []string) bool {
	h := m.byController[controller]
	if h == nil {
		return false
	}
	names := v1
	if h.v2 {
		names = v2
	}
	for _, name := range names {
		if _, err := os.Stat(h.dir("/" + name)); err == nil {
			return true
		}
		// The root lacks some; any cgroup below it will do.
		for _, below := range []string{"/*/", "/*/*/"} {
			if matches, err := filepath.Glob(h.dir(below + name)); err == nil && len(matches) > 0 {
				return true
			}
		}
	}
	return false
}
