package server

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
)

// unifiedDelay is how long an exec must live to be moved into its container's
// cgroup of v2 on a hybrid host.
const unifiedDelay = 100 * time.Millisecond

// joins are the files by which an exec joins its container's cgroups on its
// own; none where libcontainer is to move it. On v2 libcontainer has it made
// inside. On a hybrid host v2 has no controllers, and it is there for the
// pressure alone: see joinLater.
func (s *Server) joins(c *container) []string {
	if !s.selfJoin {
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

// canSelfJoin tells a host where all controllers are on v1.
func canSelfJoin() bool {
	if cgroups.IsCgroup2UnifiedMode() {
		return false
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/unified/cgroup.controllers")
	return os.IsNotExist(err) || err == nil && len(controllers) == 0
}

// joinLater moves an exec that lives on into its container's cgroup of v2,
// which has the kernel wait. stop must be called when it has ended.
func (s *Server) joinLater(c *container, pid int) (stop func()) {
	unified := c.record.Cgroups[""]
	if !s.selfJoin || unified == "" {
		return func() {}
	}
	timer := time.AfterFunc(unifiedDelay, func() {
		// It may be gone; then nothing is missing.
		_ = os.WriteFile(filepath.Join(unified, cgroups.CgroupProcesses), []byte(strconv.Itoa(pid)), 0)
	})
	return func() { timer.Stop() }
}

// execHandle is what an exec is run by: the container's own handle, but where
// execs join by themselves one that knows of no cgroups, and so moves nobody.
func (s *Server) execHandle(c *container) (*libcontainer.Container, error) {
	if len(s.joins(c)) == 0 {
		return s.loaded(c)
	}
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

// writeExecState copies libcontainer's state of a container without cgroups.
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
	dir := filepath.Join(s.dir(execsDir), id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, stateFile), state)
}
