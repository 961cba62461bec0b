package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// unifiedDelay is how long an exec must live to be moved into its container's
// cgroup of v2 on a hybrid host.
const unifiedDelay = 100 * time.Millisecond

// joins are the files by which an exec joins its container's cgroups on its
// own; none where libcontainer is to move it. On v2 libcontainer has it made
// inside. On a hybrid host v2 limits nothing, and is there for the pressure
// alone: see joinLater.
func (s *Server) joins(c *container) []string {
	if !s.selfJoin || unifiedLimits(c.record.Cgroups[""]) {
		return nil
	}
	var files []string
	for controller, dir := range c.record.Cgroups {
		if controller != "" && dir != "" {
			files = append(files, filepath.Join(dir, "tasks"))
		}
	}
	return files
}

// unifiedLimits tells whether a cgroup of v2 can limit a process that has just begun.
// A hybrid host may have left controllers to v2; that of huge pages has nothing
// to limit where there are none, which most nodes do not have.
func unifiedLimits(unified string) bool {
	if unified == "" {
		return false
	}
	controllers, err := readLine(filepath.Join(unified, "cgroup.controllers"))
	if err != nil {
		return !errors.Is(err, unix.ENOENT)
	}
	switch controllers {
	case "":
		return false
	case "hugetlb":
		return hasHugePages()
	}
	return true
}

// hugePages tell how many huge pages of each size the host has, and may have.
// The sizes are the processor's.
var hugePages = sync.OnceValue(func() []string {
	files, _ := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*/nr_*hugepages")
	return files
})

func hasHugePages() bool {
	return slices.ContainsFunc(hugePages(), func(file string) bool {
		n, err := readLine(file)
		return err != nil || n != "0"
	})
}

// readLine reads a small file of the kernel's, past the runtime's poller.
func readLine(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var buf [256]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

// joinLater moves an exec that lives on into its container's cgroup of v2,
// which has the kernel wait. stop must be called when it has ended.
func joinLater(c *container, e *execution) (stop func()) {
	unified := c.record.Cgroups[""]
	if !e.joined || unified == "" {
		return func() {}
	}
	pid := e.proc.PID()
	timer := time.AfterFunc(unifiedDelay, func() {
		// It may be gone; then nothing is missing.
		_ = os.WriteFile(filepath.Join(unified, cgroups.CgroupProcesses), []byte(strconv.Itoa(pid)), 0)
	})
	return func() { timer.Stop() }
}

// execHandle is what an exec is run by that joins its cgroups by itself: it
// knows of none, and so moves nobody.
func (s *Server) execHandle(c *container) (*libcontainer.Container, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.execHandle != nil {
		return c.execHandle, nil
	}
	if err := s.writeExecState(c.id); err != nil {
		return nil, fmt.Errorf("load container %s: %w", c.id, err)
	}
	handle, err := libcontainer.Load(s.dir(execsDir), c.id)
	if err != nil {
		return nil, fmt.Errorf("load container %s: %w", c.id, err)
	}
	c.execHandle = handle
	s.trim.touch()
	return handle, nil
}

const (
	// execsDir has libcontainer's states for execs, stateFile their name.
	execsDir, stateFile = "execs", "state.json"
)

// unusedByExecs is what of a container's configuration made its file system
// and cgroups. The init of an exec would decode it for nothing: it is most of
// the configuration.
var unusedByExecs = []string{"mounts", "devices", "mask_paths", "readonly_paths", "sysctl", "Hooks"}

// writeExecState copies libcontainer's state of a container without cgroups
// and what made its file system.
func (s *Server) writeExecState(id string) error {
	data, err := os.ReadFile(filepath.Join(s.root(), id, stateFile))
	if err != nil {
		return err
	}
	var state map[string]json.RawMessage
	if err := json.Unmarshal(data, &state); err != nil {
		return err
	}
	// Not null, which means the usual ones.
	state["cgroup_paths"] = json.RawMessage("{}")
	if state["config"], err = without(state["config"], unusedByExecs...); err != nil {
		return err
	}
	dir := filepath.Join(s.dir(execsDir), id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, stateFile), state)
}

// without gives a JSON object without some of its fields.
func without(object json.RawMessage, names ...string) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil {
		return nil, err
	}
	for _, name := range names {
		delete(fields, name)
	}
	return json.Marshal(fields)
}
