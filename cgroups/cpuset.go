package cgroups

import (
	"bytes"
	"fmt"
	"strings"
)

// Cpuset gives the CPUs and memory nodes that the tasks of a cgroup may use,
// as lists such as "0-2,4"; empty where the host has no cpuset controller, or
// the cgroup none.
func (m *Manager) Cpuset(path string) (cpus, mems string, err error) {
	p, err := m.clean(path)
	if err != nil {
		return "", "", err
	}
	h := m.byController["cpuset"]
	if h == nil {
		return "", "", nil
	}
	suffix := ""
	if h.v2 {
		suffix = ".effective"
	}
	read := func(name string) string {
		data, e := readFile(h.dir(p) + "/" + name + suffix)
		if e != nil && !gone(e) {
			err = fmt.Errorf("read cpuset of cgroup %s: %w", path, e)
		}
		return string(bytes.TrimSpace(data))
	}
	cpus, mems = read("cpuset.cpus"), read("cpuset.mems")
	return cpus, mems, err
}

// Files gives what files of a cgroup's controllers hold, such as "memory.high";
// on v2 alone, and without those that are not there.
func (m *Manager) Files(path string, names []string) (map[string]string, error) {
	p, err := m.clean(path)
	if err != nil {
		return nil, err
	}
	held := map[string]string{}
	for _, name := range names {
		controller, _, _ := strings.Cut(name, ".")
		h := m.byController[controller]
		if h == nil || !h.v2 || strings.Contains(name, "/") {
			continue
		}
		data, err := readFile(h.dir(p) + "/" + name)
		switch {
		case gone(err):
		case err != nil:
			return nil, fmt.Errorf("read %s of cgroup %s: %w", name, path, err)
		default:
			held[name] = string(bytes.TrimSpace(data))
		}
	}
	return held, nil
}
