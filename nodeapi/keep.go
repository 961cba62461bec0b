package nodeapi

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	// runName is the record of how a container is to run.
	runName = "run.json"
	// maxRunRecord bounds it, in bytes.
	maxRunRecord = 1 << 20
)

// runRecord is what outlives the agent of how a container is to run, beyond
// what it was made with.
type runRecord struct {
	// Stopped says that a person stopped it, and not started it since.
	Stopped bool `json:",omitempty"`
	// Resume says that a person's restart was begun and is not over: an agent
	// that finds it starts the container.
	Resume bool `json:",omitempty"`
	// Restarts counts those of its policy since a person started it.
	Restarts int64 `json:",omitempty"`
	// Pause is how long the restart after the last one waits.
	Pause time.Duration `json:",omitempty"`
	// BootID is that of the boot in which it was last started, where it has a
	// restart policy.
	BootID string `json:",omitempty"`
	// Unlinked are the aliases of links that a person removed.
	Unlinked []string `json:",omitempty"`
	// Update is what a person changed since it was made, in protobuf's JSON.
	Update json.RawMessage `json:",omitempty"`
}

// keep is what is remembered of a container in memory.
type keep struct {
	// began is when it last started, as far as was told.
	began time.Time
	// ended is when it last ended, as far as was told.
	ended time.Time
	// restart is the start that is to come; nil when there is none.
	restart *restart
	// pause is how long the next restart waits, and paused the end that the last
	// one waited after.
	pause  time.Duration
	paused time.Time
	// health is its health check that runs; nil when there is none.
	health *health
}

// kept is what is remembered of a container. s.mu is held.
func (s *Server) kept(id string) *keep {
	k := s.keeps[id]
	if k == nil {
		k = &keep{}
		s.keeps[id] = k
	}
	return k
}

// runOf is a container's record; none is one that says nothing. It is read
// from disk once.
func (s *Server) runOf(key string) (runRecord, error) {
	s.runsMu.Lock()
	defer s.runsMu.Unlock()
	if r, ok := s.runs[key]; ok {
		return r, nil
	}
	r, err := s.readRun(key)
	if err == nil {
		s.runs[key] = r
	}
	return r, err
}

func (s *Server) readRun(key string) (runRecord, error) {
	var r runRecord
	data, err := atomicfile.Read(s.files.path(key, runName), maxRunRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}

// changeRun changes a container's record.
func (s *Server) changeRun(c sandbox.Container, change func(*runRecord)) error {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil || pod.Owner != sandbox.OwnerNodectl {
		return err
	}
	key := podKey(pod)
	s.records.Lock()
	defer s.records.Unlock()
	r, err := s.runOf(key)
	if err != nil {
		return err
	}
	before, err := json.Marshal(r)
	if err != nil {
		return err
	}
	change(&r)
	data, err := json.Marshal(r)
	if err != nil || string(data) == string(before) {
		return err
	}
	if err := atomicfile.Write(s.files.path(key, runName), data, 0o600); err != nil {
		return err
	}
	s.runsMu.Lock()
	defer s.runsMu.Unlock()
	s.runs[key] = r
	return nil
}

// withUpdate is a specification with what a person changed since.
func (s *Server) withUpdate(key string, spec *nodev1.ContainerSpec) *nodev1.ContainerSpec {
	r, err := s.runOf(key)
	if err != nil {
		return spec
	}
	if len(r.Unlinked) > 0 {
		spec = proto.CloneOf(spec)
		spec.Links = slices.DeleteFunc(spec.Links, func(l string) bool { return slices.Contains(r.Unlinked, aliasOf(l)) })
	}
	if len(r.Update) == 0 {
		return spec
	}
	update := &nodev1.UpdateRequest{}
	if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(r.Update, update) != nil {
		return spec
	}
	return applyUpdate(spec, update)
}

// applyUpdate gives a specification with the changes of an update.
func applyUpdate(spec *nodev1.ContainerSpec, update *nodev1.UpdateRequest) *nodev1.ContainerSpec {
	spec = proto.CloneOf(spec)
	if update.GetRestart() != nil {
		spec.Restart = update.GetRestart()
	}
	if spec.Resources == nil {
		spec.Resources = &nodev1.Resources{}
	}
	proto.Merge(spec.Resources, update.GetResources())
	return spec
}

// warnOf logs what concerns one container and stops nothing.
func (s *Server) warnOf(c sandbox.Container, err error, what string) {
	if err != nil && !errors.Is(err, context.Canceled) {
		logrus.WithError(err).WithField("container", c.ID).Warn(what)
	}
}

// bootID names the running boot of the machine.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
