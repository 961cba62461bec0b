package stream

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/sirupsen/logrus"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
)

var _ portforward.PortForwarder = (*session)(nil)

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

// call makes one call of the runtime's.
func (s *session) call(do func() error) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.done()
	return s.failed(do())
}

// PortForward serves one connection to a port.
func (s *session) PortForward(_ context.Context, podID, _ string, port int32, stream io.ReadWriteCloser) error {
	return s.call(func() error { return s.runtime.PortForward(s.ctx, podID, uint16(port), stream) })
}

// failed logs an error, unless the client went and caused it.
func (s *session) failed(err error) error {
	var code exitCode
	if err == nil || errors.As(err, &code) {
		return err
	}
	if s.ctx.Err() != nil {
		s.log.WithError(err).Debug("stream ended by its client")
	} else {
		s.log.WithError(err).Warn("stream failed")
	}
	return err
}
