package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

var (
	_ remotecommand.Executor    = (*session)(nil)
	_ remotecommand.Attacher    = (*session)(nil)
	_ portforward.PortForwarder = (*session)(nil)
)

// session is one redeemed ticket: what the protocols call to run it.
type session struct {
	server  *Server
	runtime Runtime
	ticket  ticket
	log     *logrus.Entry
	// ctx ends with the client's connection, the server or the session. The
	// protocols hand none to port forwarding.
	ctx    context.Context
	cancel context.CancelFunc

	// mu guards ended; work counts the calls under way.
	mu    sync.Mutex
	ended bool
	work  sync.WaitGroup
}

func newSession(ctx context.Context, s *Server, prepared ticket) *session {
	ctx, cancel := context.WithCancel(ctx)
	return &session{
		server: s, runtime: s.runtime, ticket: prepared, ctx: ctx, cancel: cancel,
		log: s.config.Log.WithFields(logrus.Fields{"stream": prepared.kind, "id": prepared.id}),
	}
}

// end cancels what is under way and waits for it.
func (s *session) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
}

// begin counts a call in. It is refused once the session has ended: a protocol
// may hand over a stream at the moment the connection goes.
func (s *session) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return errors.New("the session has ended")
	}
	if !s.server.enter() {
		return errors.New("the agent is stopping")
	}
	s.work.Add(1)
	return nil
}

// done counts a call out.
func (s *session) done() {
	s.work.Done()
	s.server.calls.Done()
}

// ExecInContainer runs the ticket's command. A command that ends with another
// code than zero is an error of the type by which the protocol tells the code.
func (s *session) ExecInContainer(_ context.Context, _, _, containerID string, cmd []string,
	stdin io.Reader, stdout, stderr io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.done()
	streams, release := s.streams(stdin, stdout, stderr, resize)
	defer release()
	code, err := s.runtime.Exec(s.ctx, sandbox.ExecRequest{ContainerID: containerID, Cmd: cmd, IO: streams})
	if err != nil {
		return s.failed(err)
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return nil
}

// AttachContainer attaches to the ticket's container.
func (s *session) AttachContainer(_ context.Context, _, _, containerID string,
	stdin io.Reader, stdout, stderr io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.done()
	streams, release := s.streams(stdin, stdout, stderr, resize)
	defer release()
	return s.failed(s.runtime.Attach(s.ctx, containerID, streams))
}

// PortForward serves one connection to a port.
func (s *session) PortForward(_ context.Context, podID, _ string, port int32, stream io.ReadWriteCloser) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.done()
	return s.failed(s.runtime.PortForward(s.ctx, podID, uint16(port), stream))
}

// failed logs an error, unless the client went and caused it.
func (s *session) failed(err error) error {
	if err == nil {
		return nil
	}
	if s.ctx.Err() != nil {
		s.log.WithError(err).Debug("stream ended by its client")
	} else {
		s.log.WithError(err).Warn("stream failed")
	}
	return err
}

// streams picks the streams that the client asked for: WebSocket has all of
// them, wanted or not. release ends the passing on of terminal sizes.
func (s *session) streams(stdin io.Reader, stdout, stderr io.WriteCloser, resize <-chan remotecommand.TerminalSize) (sandbox.IO, func()) {
	wanted := s.ticket.wanted
	streams := sandbox.IO{TTY: wanted.TTY}
	if wanted.Stdin {
		streams.Stdin = stdin
	}
	if wanted.Stdout {
		streams.Stdout = stdout
	}
	if wanted.Stderr && !wanted.TTY {
		streams.Stderr = stderr
	}
	if resize == nil {
		return streams, func() {}
	}
	sizes, release := passSizes(s.ctx, resize)
	if wanted.TTY {
		streams.Resize = sizes
	}
	return streams, release
}
