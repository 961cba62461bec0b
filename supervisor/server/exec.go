package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor"
	"github.com/nodeagent/nodeagent/supervisor/fdpass"
	"github.com/nodeagent/nodeagent/supervisor/server/cgroupjoin"
	"github.com/nodeagent/nodeagent/supervisor/server/pidfd"
)

const (
	// execLife is how long an ended exec can still be asked for.
	execLife = time.Minute
	// maxExecs bounds the execs of one container that run or can still be
	// asked for.
	maxExecs = 4096
	// maxHeldUp bounds those that it holds up when they start.
	maxHeldUp = 16
	// execPatience is how long an exec that starts has a slot, and holdMemory
	// how long execs have none after one of their container was held up.
	execPatience = time.Second
	holdMemory   = time.Minute
)

// execution is one exec in a container. Its streams are the process's own:
// nothing of it passes through here.
type execution struct {
	// started is closed once the start ended. proc is set by then, or nil
	// when it failed; startTime names the process together with its number.
	started   chan struct{}
	proc      *pidfd.Process
	startTime uint64
	// joined: it joined the container's cgroups of v1 by itself.
	joined bool
	// oomScoreAdj is what was asked for; nil means the container's.
	oomScoreAdj *int
	// done is closed once exit is set, and forget, which makes it unknown when
	// nobody asks.
	done   chan struct{}
	exit   supervisor.Exit
	forget *time.Timer
}

// Exec runs a further process in a running container.
func (s *Server) Exec(ctx context.Context, req *v1.ExecRequest) (*v1.ExecResponse, error) {
	files, err := s.tokens.take(req.Streams)
	if err != nil {
		return nil, fmt.Errorf("exec %s in container %s: %w", req.ExecId, req.ContainerId, err)
	}
	handedOver := false
	defer func() {
		if !handedOver {
			files.Close()
		}
	}()
	if err := validateID("exec", req.ExecId); err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", req.ContainerId, err)
	}
	c, err := s.find(req.ContainerId)
	if err != nil {
		return nil, fmt.Errorf("exec %s in %w", req.ExecId, err)
	}
	words := fmt.Sprintf("exec %s in container %s", req.ExecId, c.id)
	if err := c.runs(); err != nil {
		return nil, fmt.Errorf("%s: %w", words, err)
	}
	e := &execution{started: make(chan struct{}), done: make(chan struct{})}
	process, err := s.execProcess(e, req, files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", words, err, errdefs.ErrInvalidArgument)
	}
	giveBack, err := s.execSlot(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", words, err)
	}
	defer giveBack()
	s.trim.touch()
	handedOver = true
	pid, err := s.execWithin(ctx, c, req.ExecId, func() (int, error) {
		// Not before the start is over, for other files would get their numbers.
		defer files.Close()
		return s.exec(ctx, c, req.ExecId, e, process)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", words, err)
	}
	return &v1.ExecResponse{Pid: int32(pid)}, nil
}

// execSlot is a slot for an exec. A container that held up another one lately
// has none: its own execs go on without, and those of others are not kept from
// theirs.
func (s *Server) execSlot(ctx context.Context, c *container) (giveBack func(), err error) {
	c.mu.Lock()
	slow := time.Since(c.heldUpAt) < holdMemory
	c.mu.Unlock()
	if slow {
		return func() {}, nil
	}
	return s.slot(ctx, execPatience)
}

// execWithin starts a process, and waits for that no longer than ctx lasts: a
// container can hold up what starts in it for as long as it lives, and must
// not hold up others by it. What starts after all is killed.
func (s *Server) execWithin(ctx context.Context, c *container, execID string, start func() (int, error)) (int, error) {
	type result struct {
		pid int
		err error
	}
	started, abandoned := make(chan result), make(chan struct{})
	go func() {
		defer c.noteHoldUps()()
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("panic: %v: %w", p, errdefs.ErrInternal)
			}
			select {
			case started <- r:
			case <-abandoned:
				if r.err == nil {
					_, _ = s.KillExec(context.Background(), &v1.ExecIDRequest{ContainerId: c.id, ExecId: execID})
				}
			}
		}()
		r.pid, r.err = start()
	}()
	select {
	case r := <-started:
		return r.pid, r.err
	case <-ctx.Done():
		close(abandoned)
		logrus.WithField("container", c.id).WithField("exec", execID).Debug("exec is given up")
		return 0, fmt.Errorf("it does not start: %w", ctx.Err())
	}
}

// noteHoldUps counts an exec among those that are held up once it has been
// starting for long. ended must be called when it has started.
func (c *container) noteHoldUps() (ended func()) {
	count := func(n int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.heldUp += n
		c.heldUpAt = time.Now()
	}
	timer := time.AfterFunc(execPatience, func() { count(1) })
	return func() {
		if !timer.Stop() {
			count(-1)
		}
	}
}

// execProcess makes libcontainer's process of a request, and fills e with what
// that has no word for.
func (s *Server) execProcess(e *execution, req *v1.ExecRequest, files *fdpass.Set) (*libcontainer.Process, error) {
	var p specs.Process
	if err := json.Unmarshal(req.Process, &p); err != nil {
		return nil, fmt.Errorf("decode process: %w", err)
	}
	scored := p.OOMScoreAdj != nil
	s.limits.clamp(&p)
	if scored {
		e.oomScoreAdj = p.OOMScoreAdj
	}
	process, err := newProcess(&p)
	if err != nil {
		return nil, err
	}
	process.Init = false
	if p.Terminal {
		if files.Console == nil {
			return nil, errors.New("terminal without a console socket")
		}
		process.ConsoleSocket = files.Console
		return process, nil
	}
	// A nil file in an interface is not a nil interface.
	if files.Stdin != nil {
		process.Stdin = files.Stdin
	}
	if files.Stdout != nil {
		process.Stdout = files.Stdout
	}
	if files.Stderr != nil {
		process.Stderr = files.Stderr
	}
	return process, nil
}

// exec starts a process and begins to wait for it.
func (s *Server) exec(ctx context.Context, c *container, execID string, e *execution, process *libcontainer.Process) (int, error) {
	if err := c.addExec(execID, e); err != nil {
		return 0, err
	}
	defer close(e.started)
	proc, err := s.runPlain(ctx, c, e, process)
	if errors.Is(err, errNotPlain) {
		proc, err = s.runExec(c, e, process)
	}
	if err != nil {
		c.removeExec(execID, e)
		if ended := c.runs(); ended != nil {
			return 0, ended
		}
		return 0, err
	}
	e.proc = proc
	if stat, err := pidfd.ReadStat(proc.PID()); err == nil {
		e.startTime = stat.StartTime
	}
	go s.watchExec(c, execID, e)
	return proc.PID(), nil
}

// runExec has libcontainer run a process, and takes hold of it.
func (s *Server) runExec(c *container, e *execution, process *libcontainer.Process) (*pidfd.Process, error) {
	logrus.WithField("container", c.id).Debug("exec by libcontainer")
	load, files := s.loaded, s.joins(c)
	if e.joined = len(files) > 0; e.joined {
		load = s.execHandle
		process.LogLevel = cgroupjoin.LogLevel(process.LogLevel, files)
	}
	handle, err := load(c)
	if err != nil {
		return nil, err
	}
	if err := handle.Run(process); err != nil {
		return nil, startError(err)
	}
	pid, err := process.Pid()
	if err != nil {
		return nil, err
	}
	e.rescore(pid, handle.Config().OomScoreAdj)
	proc, err := pidfd.Open(pid)
	if err != nil {
		_ = process.Signal(unix.SIGKILL)
		_, _ = process.Wait()
	}
	return proc, err
}

// rescore gives a process of libcontainer's, which has that of its container,
// the oom_score_adj that was asked for. It may have a child already.
func (e *execution) rescore(pid int, has *int) {
	if e.oomScoreAdj == nil || has != nil && *has == *e.oomScoreAdj {
		return
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), strconv.AppendInt(nil, int64(*e.oomScoreAdj), 10), 0); err != nil {
		logrus.WithField("pid", pid).WithError(err).Warn("set oom_score_adj")
	}
}

// addExec makes an exec known, and with that its ID used.
func (c *container) addExec(execID string, e *execution) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.status != supervisor.StatusRunning:
		return fmt.Errorf("it is %s: %w", c.status, errdefs.ErrFailedPrecondition)
	case c.execs[execID] != nil:
		return errdefs.ErrAlreadyExists
	case c.heldUp >= maxHeldUp:
		return fmt.Errorf("%d execs have not started yet: %w", c.heldUp, context.DeadlineExceeded)
	case len(c.execs) >= maxExecs:
		return fmt.Errorf("it has %d execs: %w", maxExecs, errdefs.ErrResourceExhausted)
	}
	if c.execs == nil {
		c.execs = map[string]*execution{}
	}
	c.execs[execID] = e
	return nil
}

func (c *container) removeExec(execID string, e *execution) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.execs[execID] == e {
		delete(c.execs, execID)
	}
}

// watchExec waits for an exec and keeps its exit until somebody asks, for a
// while.
func (s *Server) watchExec(c *container, execID string, e *execution) {
	stop := joinLater(c, e)
	status, err := e.proc.Wait()
	stop()
	if err != nil {
		logrus.WithField("container", c.id).WithField("exec", execID).WithError(err).Error("wait for exec")
	}
	e.exit = supervisor.Exit{Code: status.Code, Signal: status.Signal, At: time.Now()}
	if !status.Known {
		e.exit.Code, e.exit.Reason = codeLost, reasonLost
	}
	e.forget = time.AfterFunc(execLife, func() { c.removeExec(execID, e) })
	close(e.done)
	e.proc.Close()
	s.trim.touch()
}

// findExec returns an exec once its start ended well.
func (s *Server) findExec(ctx context.Context, id, execID string) (*container, *execution, error) {
	c, err := s.find(id)
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	e := c.execs[execID]
	c.mu.Unlock()
	if e != nil {
		select {
		case <-e.started:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("exec %s in container %s: wait for its start: %w", execID, id, ctx.Err())
		}
	}
	if e == nil || e.proc == nil {
		return nil, nil, fmt.Errorf("exec %s in container %s: %w", execID, id, errdefs.ErrNotFound)
	}
	return c, e, nil
}

// WaitExec answers once the process ended.
func (s *Server) WaitExec(ctx context.Context, req *v1.ExecIDRequest) (*v1.WaitExecResponse, error) {
	c, e, err := s.findExec(ctx, req.ContainerId, req.ExecId)
	if err != nil {
		return nil, fmt.Errorf("wait for %w", err)
	}
	select {
	case <-e.done:
		// Nobody asks again.
		e.forget.Stop()
		c.removeExec(req.ExecId, e)
		return &v1.WaitExecResponse{Exit: exitMessage(&e.exit)}, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for exec %s in container %s: %w", req.ExecId, req.ContainerId, ctx.Err())
	}
}
