package server

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor"
	"github.com/nodeagent/nodeagent/supervisor/server/pidfd"
	"github.com/nodeagent/nodeagent/supervisor/server/stdio"
)

// container is one container, from the beginning of its start to the end of
// its deletion:
//
//	starting -> running <-> paused -> stopped -> (deleted)
//
// A start that fails goes from starting to deleted.
type container struct {
	id string
	// op is held, as a token in the channel, by the one operation that
	// changes the container.
	op chan struct{}
	// ended is closed once the exit is recorded.
	ended chan struct{}

	mu     sync.Mutex // guards the fields below
	status supervisor.Status
	record record
	proc   *pidfd.Process
	io     *stdio.IO
	exit   *supervisor.Exit
	execs  map[string]*execution
	// heldUp is how many execs it holds up now when they start, and heldUpAt
	// when that last changed.
	heldUp   int
	heldUpAt time.Time
	// handle is libcontainer's, or nil; it is large, so it is dropped when
	// it has not been used for a while and loaded again from its state.
	handle *libcontainer.Container
	// execHandle is as handle, for execs.
	execHandle *libcontainer.Container
	// plain is what execs without libcontainer need; nil before the first.
	plain *plainConfig
}

// statusStarting is what a container has before its first instruction; it is
// never told.
const statusStarting supervisor.Status = "starting"

// maxID is the length of the longest ID.
const maxID = 128

// validID tells what an ID may look like: it becomes a file name. An
// expression would be compiled anew in the init of each container and exec.
func validID(id string) bool {
	for i, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && strings.IndexByte("_.+-", c) >= 0:
		default:
			return false
		}
	}
	return id != "" && len(id) <= maxID
}

func validateID(kind, id string) error {
	if !validID(id) {
		return fmt.Errorf("%s ID %.140q: %w", kind, id, errdefs.ErrInvalidArgument)
	}
	return nil
}

func newContainer(id string) *container {
	return &container{
		id:     id,
		status: statusStarting,
		op:     make(chan struct{}, 1),
		ended:  make(chan struct{}),
	}
}

// acquire waits for the container's other operation to end.
func (c *container) acquire(ctx context.Context) error {
	select {
	case c.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("container %s: wait for another operation: %w", c.id, ctx.Err())
	}
}

func (c *container) release() { <-c.op }

// find returns a container that has been started.
func (s *Server) find(id string) (*container, error) {
	s.mu.Lock()
	c := s.containers[id]
	s.mu.Unlock()
	if c == nil {
		return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	return c, nil
}

// findRunning returns a container that runs or is paused.
func (s *Server) findRunning(id string) (*container, error) {
	c, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if c.runs() != nil {
		return nil, c.notRunning()
	}
	return c, nil
}

// runs returns nil of a container that runs or is paused, else why it is none,
// in words that follow its name.
func (c *container) runs() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != supervisor.StatusRunning && c.status != supervisor.StatusPaused {
		return fmt.Errorf("it is not running: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

func (c *container) notRunning() error {
	return fmt.Errorf("container %s is not running: %w", c.id, errdefs.ErrFailedPrecondition)
}

// state is what List tells of c; nil while it starts.
func (c *container) state() *v1.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == statusStarting {
		return nil
	}
	m := &v1.State{
		Id:        c.id,
		Status:    string(c.status),
		StartedAt: nanos(c.record.StartedAt),
		Exit:      exitMessage(c.exit),
	}
	if c.exit == nil {
		m.Pid = int32(c.record.PID)
	}
	return m
}

// loaded returns libcontainer's handle of c. The caller holds c.op, or uses
// the handle for what libcontainer itself locks.
func (s *Server) loaded(c *container) (*libcontainer.Container, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handle != nil {
		return c.handle, nil
	}
	handle, err := libcontainer.Load(s.root(), c.id)
	if err != nil {
		return nil, fmt.Errorf("load container %s: %w", c.id, err)
	}
	c.handle = handle
	s.trim.touch()
	return handle, nil
}

// dropCaches forgets what can be loaded again.
func (s *Server) dropCaches() {
	for _, c := range s.all() {
		c.mu.Lock()
		c.handle, c.execHandle = nil, nil
		c.mu.Unlock()
	}
}

func exitMessage(e *supervisor.Exit) *v1.Exit {
	if e == nil {
		return nil
	}
	return &v1.Exit{
		Code:      int32(e.Code),
		Signal:    int32(e.Signal),
		At:        nanos(e.At),
		OomKilled: e.OOMKilled,
		Reason:    e.Reason,
	}
}

// nanos is t in nanoseconds since the epoch, zero for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
