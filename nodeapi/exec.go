package nodeapi

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// execStream is the server's side of an Exec call.
type execStream = grpc.BidiStreamingServer[nodev1.ExecRequest, nodev1.ExecResponse]

// Exec runs a further process in a running container.
func (s *containers) Exec(stream execStream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	req := first.GetStart()
	if req == nil || len(req.GetCommand()) == 0 {
		return failf(errdefs.ErrInvalidArgument, "exec: the first message must be start with a command")
	}
	c, err := s.find(req.GetContainer())
	if err != nil {
		return err
	}
	switch c.State {
	case sandbox.ContainerRunning:
	case sandbox.ContainerPaused:
		return failf(errdefs.ErrFailedPrecondition, "container %s is paused, unpause the container before exec", c.ID)
	default:
		return failf(errdefs.ErrFailedPrecondition, "container %s is not running", c.ID)
	}
	if req.GetCommand()[0] == "" {
		return failf(errdefs.ErrInvalidArgument, `exec: "": executable file not found in $PATH`)
	}
	er := sandbox.ExecRequest{
		ContainerID: c.ID, Cmd: req.GetCommand(), Env: req.GetEnv(), Cwd: req.GetWorkingDir(),
		User: wholeUser(req.GetUser()), Privileged: req.GetPrivileged(),
	}
	if !req.GetTty() {
		er.Env = append(s.foreignTerm(stream.Context(), c), er.Env...)
	}
	if req.GetDetach() {
		return s.execDetached(stream, er, req.GetTty())
	}
	return s.execAttached(stream, er, req)
}

// execDetached leaves the process to the server once it runs: it ends with the
// agent.
func (s *containers) execDetached(stream execStream, er sandbox.ExecRequest, tty bool) error {
	er.IO = sandbox.IO{TTY: tty}
	started, failed := make(chan struct{}), make(chan error, 1)
	er.Started = func() { close(started) }
	ok := s.goBackground(func(ctx context.Context) {
		_, err := s.exec(ctx, er)
		select {
		case <-started:
			if err != nil && ctx.Err() == nil {
				logrus.WithError(err).WithField("container", er.ContainerID).Warn("detached exec failed")
			}
		default:
			failed <- err
		}
	})
	if !ok {
		return failf(errdefs.ErrUnavailable, "the agent is stopping")
	}
	select {
	case <-started:
		return sendExecAttached(stream, er.ContainerID)
	case err := <-failed:
		return err
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// execAttached serves the process's streams, and tells its exit code.
func (s *containers) execAttached(stream execStream, er sandbox.ExecRequest, req *nodev1.ExecStart) error {
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	st := &streams{
		ctx: ctx,
		receive: func() (input, error) {
			m, err := stream.Recv()
			return input{stdin: m.GetStdin(), closed: m.GetStdinClosed(), resize: m.GetResize(), detach: m.GetDetach()}, err
		},
		send: func(o *nodev1.Output) error {
			return stream.Send(&nodev1.ExecResponse{Message: &nodev1.ExecResponse_Output{Output: o}})
		},
	}
	left := make(chan struct{})
	st.leave = sync.OnceFunc(func() { close(left) })
	st.open(wanted{stdin: req.GetStdin(), output: true, tty: req.GetTty(), size: req.GetSize()})
	defer st.close()
	if err := sendExecAttached(stream, er.ContainerID); err != nil {
		return err
	}
	if !s.goBackground(func(context.Context) { st.pump() }) {
		return failf(errdefs.ErrUnavailable, "the agent is stopping")
	}
	er.IO = st.io
	code, err := s.execUntilLeft(ctx, er, left)
	if errors.Is(err, errLeft) {
		return nil
	}
	if err != nil {
		return err
	}
	st.sending.Lock()
	defer st.sending.Unlock()
	return stream.Send(&nodev1.ExecResponse{Message: &nodev1.ExecResponse_Exit{Exit: int32(code)}})
}

// errLeft is a client that left a process running.
var errLeft = errors.New("the client left")

// execUntilLeft runs a process until it ends, or its client leaves it. One
// whose client only goes away is killed.
func (s *Server) execUntilLeft(ctx context.Context, er sandbox.ExecRequest, left <-chan struct{}) (int, error) {
	type result struct {
		code int
		err  error
	}
	done := make(chan result, 1)
	execID := sandbox.NewID()
	own, cancel := context.WithCancel(s.life)
	ok := s.goBackground(func(context.Context) {
		defer cancel()
		code, err := s.execAs(own, execID, er)
		done <- result{code, err}
	})
	if !ok {
		cancel()
		return 0, failf(errdefs.ErrUnavailable, "the agent is stopping")
	}
	select {
	case <-left:
		return 0, s.execLeft(er.ContainerID, execID)
	case r := <-done:
		return r.code, r.err
	case <-ctx.Done():
	}
	select {
	case <-left:
		return 0, s.execLeft(er.ContainerID, execID)
	default:
	}
	cancel()
	r := <-done
	return r.code, errors.Join(r.err, ctx.Err())
}

// execLeft tells that a process runs on without its client, and returns errLeft.
func (s *Server) execLeft(container, execID string) error {
	if c, err := s.sandboxes.Container(container); err == nil {
		s.emitContainer("exec_detach", c, "execID", execID)
	}
	return errLeft
}

// exec runs a process and tells of it.
func (s *Server) exec(ctx context.Context, er sandbox.ExecRequest) (int, error) {
	return s.execAs(ctx, sandbox.NewID(), er)
}

// killedCode is the exit code of a process that SIGKILL ended.
const killedCode = 137

// execAs is exec under a name for those who hear of it.
func (s *Server) execAs(ctx context.Context, execID string, er sandbox.ExecRequest) (int, error) {
	c, err := s.sandboxes.Container(er.ContainerID)
	if err != nil {
		return 0, err
	}
	command := strings.Join(er.Cmd, " ")
	defer s.executing(c.ID, execID)()
	s.emitContainer("exec_create: "+command, c, "execID", execID)
	s.emitContainer("exec_start: "+command, c, "execID", execID)
	code, err := s.sandboxes.Exec(ctx, er)
	switch {
	case err == nil:
		s.emitContainer("exec_die", c, "execID", execID, "exitCode", strconv.Itoa(code))
	case timedOut(err) || errors.Is(err, context.Canceled):
		s.emitContainer("exec_die", c, "execID", execID, "exitCode", strconv.Itoa(killedCode))
	}
	return code, execFailure(err)
}

// executing notes that a process runs in a container, until ended is called.
func (s *Server) executing(id, execID string) (ended func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.execs[id] = append(s.execs[id], execID)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.execs[id] = slices.DeleteFunc(s.execs[id], func(one string) bool { return one == execID })
		if len(s.execs[id]) == 0 {
			delete(s.execs, id)
		}
	}
}

// execsOf are the processes that run in a container beside its own, as far as
// they were asked for here, the oldest first.
func (s *Server) execsOf(id string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.execs[id])
}

// foreignTerm takes TERM away from a process that has no terminal, where the
// container has it for its own terminal alone: neither a person nor the image
// says so.
func (s *Server) foreignTerm(ctx context.Context, c sandbox.Container) []string {
	const name = "TERM"
	if !c.Config.GetTty() || slices.ContainsFunc(c.Config.GetEnvs(), func(kv *runtime.KeyValue) bool { return kv.GetKey() == name }) {
		return nil
	}
	// An image that is gone says nothing any more.
	if img, err := s.images.Image(ctx, c.ImageID); err == nil && img.Config != nil &&
		slices.ContainsFunc(img.Config.Config.Env, func(env string) bool { return strings.HasPrefix(env, name+"=") }) {
		return nil
	}
	return []string{name}
}

// timedOut says whether a process was killed because its time was over. Whoever
// runs it may find that out before our own clock does.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errdefs.IsDeadlineExceeded(err)
}

// execFailure words an unknown user as docker does.
func execFailure(err error) error {
	if !errdefs.IsInvalidArgument(err) {
		return err
	}
	for _, words := range createWords {
		if at := words.ours.FindStringIndex(err.Error()); at != nil {
			return failf(errdefs.ErrInvalidArgument, "%s", words.ours.ReplaceAllString(err.Error()[at[0]:at[1]], words.their))
		}
	}
	return err
}

func sendExecAttached(stream execStream, id string) error {
	return stream.Send(&nodev1.ExecResponse{
		Message: &nodev1.ExecResponse_Attached{Attached: &nodev1.Attached{Id: id}},
	})
}
