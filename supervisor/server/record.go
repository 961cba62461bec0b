package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
)

// record is what the next supervisor must know of a container. It is written
// before the container runs, and again once it does.
type record struct {
	ID         string `json:"id"`
	LogPath    string `json:"log_path,omitempty"`
	MaxLogLine int    `json:"max_log_line,omitempty"`
	Terminal   bool   `json:"terminal,omitempty"`
	Stdin      bool   `json:"stdin,omitempty"`
	StdinOnce  bool   `json:"stdin_once,omitempty"`
	// SharedPID says that init's end does not end the other processes.
	SharedPID bool `json:"shared_pid,omitempty"`
	// Cgroups are the container's cgroups by controller, "" for v2.
	Cgroups map[string]string `json:"cgroups"`
	// PID and StartTime name init for good; zero before it runs.
	PID       int       `json:"pid,omitempty"`
	StartTime uint64    `json:"start_time,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
}

// recordLimit bounds a record in bytes.
const recordLimit = 1 << 20

func (s *Server) recordPath(id string) string { return filepath.Join(s.dir("records"), id+".json") }
func (s *Server) exitPath(id string) string   { return filepath.Join(s.dir("exits"), id+".json") }
func (s *Server) podInitPath(id string) string {
	return filepath.Join(s.dir("podinits"), id+".json")
}

// writeJSON replaces a file whole. The state directory is void after a
// reboot, so nothing is synced.
func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, data, 0o600)
}

// readJSON reads a file that writeJSON wrote.
func readJSON(path string, v any) error {
	data, err := atomicfile.Read(path, recordLimit)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// removeFile removes a file that may be missing.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
