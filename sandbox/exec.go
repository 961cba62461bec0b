package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/sandbox/account"
	"github.com/nodeagent/nodeagent/sandbox/spec"
	"github.com/nodeagent/nodeagent/supervisor"
)

// drainTime is how long output is still copied after the process ended: its
// children may have inherited the pipes and never close them.
const drainTime = time.Second

// killTime bounds the killing of an exec.
const killTime = 10 * time.Second

// startTime bounds the start of an exec, and lateTime the killing of one that
// was started too late.
const (
	startTime = 2 * time.Minute
	lateTime  = 500 * time.Millisecond
)

// Exec runs a process in a running container and returns when it ended and
// its output was copied. When ctx ends the process is killed.
func (m *Manager) Exec(ctx context.Context, req ExecRequest) (exitCode int, err error) {
	c, err := m.findContainer(req.ContainerID)
	if err != nil {
		return 0, fmt.Errorf("exec in %w", err)
	}
	if exitCode, err = m.execIn(ctx, c, req); err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", c.get().ID, err)
	}
	return exitCode, nil
}

func (m *Manager) execIn(ctx context.Context, c *container, req ExecRequest) (exitCode int, err error) {
	x, err := m.newExecution(c, req)
	if err != nil {
		return 0, err
	}
	if req.IO.TTY {
		return x.terminal(ctx, req.IO)
	}
	return x.pipes(ctx, req.IO)
}

// execution is a process to run in a container.
type execution struct {
	sup        Supervisor
	id, execID string
	process    *specs.Process
	started    func() // or nil
}

// name is how the supervisor's errors name it.
func (x *execution) name() string { return "exec " + x.execID + " in container " + x.id }

func (m *Manager) newExecution(c *container, req ExecRequest) (*execution, error) {
	s := c.get()
	if s.State != ContainerRunning {
		return nil, fmt.Errorf("it is %s: %w", s.State, errdefs.ErrFailedPrecondition)
	}
	if len(req.Cmd) == 0 {
		return nil, invalid("cmd", "is missing")
	}
	sup, err := m.supervisor()
	if err != nil {
		return nil, err
	}
	base, err := m.loadProcess(s.ID)
	if err != nil {
		return nil, err
	}
	opts := spec.ExecOptions{
		Args: req.Cmd, Env: req.Env, Cwd: req.Cwd,
		Terminal: req.IO.TTY, Width: req.IO.Size.Width, Height: req.IO.Size.Height,
		Privileged: req.Privileged, Capabilities: m.cfg.Features.Capabilities,
	}
	home := s.RunAs.Home
	if req.User != "" {
		user, err := account.Resolve(s.Rootfs, account.Query{Name: req.User})
		if err != nil {
			return nil, err
		}
		opts.User, home = &user, user.Home
	}
	process, err := spec.Exec(base, opts)
	if err != nil {
		return nil, err
	}
	// The specification has the first, and an update may have come since.
	if res := s.Config.GetLinux().GetResources(); res != nil {
		process.OOMScoreAdj = new(int(res.GetOomScoreAdj()))
	}
	return &execution{sup: sup, id: s.ID, execID: newID()[:32], process: withHome(process, home), started: req.Started}, nil
}

// start starts the process. A client that goes away meanwhile is not noticed
// before the process is known, for then it can be killed: the supervisor would
// go on with the start. A deadline holds, on the supervisor's side too.
func (x *execution) start(ctx context.Context, streams supervisor.Streams, console *os.File) error {
	deadline, ok := ctx.Deadline()
	if limit := time.Now().Add(startTime); !ok || limit.Before(deadline) {
		deadline = limit
	}
	detached, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	_, err := x.sup.Exec(detached, supervisor.Exec{
		ContainerID: x.id, ExecID: x.execID, Process: x.process, Streams: streams, ConsoleSocket: console,
	})
	if over(detached, err) != nil {
		// The answer that it runs may have come too late.
		kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), lateTime)
		defer cancel()
		_ = x.sup.KillExec(kill, x.id, x.execID)
	}
	if err == nil && x.started != nil {
		x.started()
	}
	return unsaid(err, x.name())
}

// wait waits for the end of the process, and kills it when ctx is done. The
// error is then ctx's, and the process and all it started are gone.
func (x *execution) wait(ctx context.Context) (int, error) {
	exit, err := x.sup.WaitExec(ctx, x.id, x.execID)
	if err == nil {
		return exit.Code, nil
	}
	why := over(ctx, err)
	if why == nil {
		return 0, unsaid(err, "wait for "+x.name())
	}
	kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTime)
	defer cancel()
	if err := x.sup.KillExec(kill, x.id, x.execID); err != nil && !errdefs.IsNotFound(err) {
		return 0, fmt.Errorf("%w, and not killed: %w", why, unsaid(err, "kill "+x.name()))
	}
	// What is left to know is only that it is over.
	_, _ = x.sup.WaitExec(kill, x.id, x.execID)
	return 0, why
}

// over returns why ctx is over, after a call of the supervisor's that ended
// with err, or nil. The supervisor knows the deadline too, and its answer that
// it has passed can be here before our own clock says so.
func over(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// pipes runs the process without a terminal. Streams that are files are given
// to the process as they are; others get a pipe and are copied.
func (x *execution) pipes(ctx context.Context, streams IO) (int, error) {
	copied, direct := splitFiles(streams)
	c, err := newClient(copied, false)
	if err != nil {
		return 0, err
	}
	defer c.abandon()
	far := c.remote()
	if direct.Stdin != nil {
		far.Stdin = direct.Stdin
	}
	if direct.Stdout != nil {
		far.Stdout = direct.Stdout
		defer direct.Stdout.Close()
	}
	if direct.Stderr != nil {
		far.Stderr = direct.Stderr
		defer direct.Stderr.Close()
	}
	if err := x.start(ctx, far, nil); err != nil {
		closeWriters(copied)
		return 0, err
	}
	c.handedOver()
	var wg sync.WaitGroup
	wg.Go(c.pump)
	code, err := x.wait(ctx)
	c.drain(drainTime)
	wg.Wait()
	return code, err
}

// splitFiles takes those streams that are files out of streams.
func splitFiles(streams IO) (IO, supervisor.Streams) {
	var direct supervisor.Streams
	if f, ok := streams.Stdin.(*os.File); ok && f != nil {
		direct.Stdin, streams.Stdin = f, nil
	}
	if f, ok := streams.Stdout.(*os.File); ok && f != nil {
		direct.Stdout, streams.Stdout = f, nil
	}
	if f, ok := streams.Stderr.(*os.File); ok && f != nil {
		direct.Stderr, streams.Stderr = f, nil
	}
	return streams, direct
}

func closeWriters(streams IO) {
	for _, w := range []io.WriteCloser{streams.Stdout, streams.Stderr} {
		if w != nil {
			w.Close()
		}
	}
}

// terminal runs the process with a terminal, whose master comes to us.
func (x *execution) terminal(ctx context.Context, streams IO) (int, error) {
	streams.Stderr = nil
	near, far, err := consolePair()
	if err != nil {
		return 0, err
	}
	defer near.Close()
	err = x.start(ctx, supervisor.Streams{}, far)
	far.Close()
	if err != nil {
		closeWriters(streams)
		return 0, err
	}
	master, err := receiveConsole(near)
	if err != nil {
		closeWriters(streams)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, _ = x.wait(ended)
		return 0, err
	}
	defer master.Close()
	return x.serveTerminal(ctx, streams, master)
}

// serveTerminal copies between a client and a terminal until the process ends.
func (x *execution) serveTerminal(ctx context.Context, streams IO, master *os.File) (int, error) {
	follows, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if streams.Resize != nil {
		wg.Go(func() {
			follow(follows, streams.Resize, func(size TerminalSize) { _ = setSize(master, size) })
		})
	}
	if streams.Stdin != nil {
		// It ends when the client's reader does.
		go func() { _, _ = io.Copy(master, streams.Stdin) }()
	}
	wg.Go(func() {
		var out io.Writer = io.Discard
		if streams.Stdout != nil {
			out = streams.Stdout
			defer streams.Stdout.Close()
		}
		// Reading the master of a terminal that nobody has open gives EIO.
		if _, err := io.Copy(out, master); err != nil {
			_, _ = io.Copy(io.Discard, master)
		}
	})
	code, err := x.wait(ctx)
	_ = master.SetReadDeadline(time.Now().Add(drainTime))
	cancel()
	wg.Wait()
	return code, err
}
