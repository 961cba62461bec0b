// Package stream serves the streams of exec, attach and port-forward over
// HTTP, as SPDY/3.1 and as WebSocket (v5.channel.k8s.io and older).
//
// An RPC leaves what it prepared under a random token and answers with a URL
// that holds it. The URL works once, for a minute. Framing is that of
// k8s.io/streaming, and port-forward over WebSocket that of k8s.io/cri-streaming;
// the rest is ours, so that a session ends when its client's connection does,
// also where nothing is being written, so that Stop can end every session and
// wait for it, and so that what clients open and send has bounds.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// Runtime runs what is streamed; the life story of each method is at
// sandbox.Service. ctx ends when the client is gone.
type Runtime interface {
	Exec(ctx context.Context, req sandbox.ExecRequest) (exitCode int, err error)
	Attach(ctx context.Context, containerID string, streams sandbox.IO) error
	PortForward(ctx context.Context, podID string, port uint16, stream io.ReadWriteCloser) error
}

const (
	// idleTimeout ends a session without traffic; it is kubelet's.
	idleTimeout = 4 * time.Hour
	// tokenLife is how long a URL can be used.
	tokenLife = time.Minute
)

// Config says where and how to serve. Zero fields have the defaults named.
type Config struct {
	// Address is host:port; default 127.0.0.1:0, a free port.
	Address string
	// CreationTimeout is how long a client may take to open all its streams
	// and to send its request; default 30 seconds.
	CreationTimeout time.Duration
	// MaxWaiting is how many connections may be open that have shown no token;
	// default 1000, as there are no more tokens.
	MaxWaiting int
	// Log gets sessions that failed; default the standard logger.
	Log *logrus.Entry
}

// Server serves streams. Its methods are safe for concurrent use.
type Server struct {
	config  Config
	runtime Runtime
	tickets *tickets
	http    *http.Server

	// mu guards what follows.
	mu      sync.Mutex
	address string
	stopped bool
	conns   map[*conn]struct{}
	// waiting is how many of them have shown no token.
	waiting int
	// calls are those of sessions under way.
	calls sync.WaitGroup

	// served is closed when the accepting goroutine has ended.
	served chan struct{}
}

// New returns a server that has not started.
func New(config Config, runtime Runtime) *Server {
	if config.Address == "" {
		config.Address = "127.0.0.1:0"
	}
	if config.CreationTimeout == 0 {
		config.CreationTimeout = remotecommand.DefaultStreamCreationTimeout
	}
	if config.MaxWaiting == 0 {
		config.MaxWaiting = maxTickets
	}
	if config.Log == nil {
		config.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	s := &Server{
		config:  config,
		runtime: runtime,
		tickets: newTickets(tokenLife),
		conns:   map[*conn]struct{}{},
		served:  make(chan struct{}),
	}
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: config.CreationTimeout,
		IdleTimeout:       config.CreationTimeout,
		MaxHeaderBytes:    64 << 10,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return c.(*conn).bind(ctx) },
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateHijacked {
				c.(*conn).hijacked.Store(true)
			}
		},
		ErrorLog: log.New(debugWriter{config.Log, "http"}, "", 0),
	}
	return s
}

// Start binds the address and serves in the background until Stop.
func (s *Server) Start() error {
	routeKlog(s.config.Log)
	listener, err := net.Listen("tcp", s.config.Address)
	if err != nil {
		return fmt.Errorf("start streaming server: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.address != "" {
		_ = listener.Close()
		return errors.New("start streaming server: it was started already")
	}
	s.address = listener.Addr().String()
	go func() {
		defer close(s.served)
		if err := s.http.Serve(&trackedListener{listener, s}); !errors.Is(err, http.ErrServerClosed) {
			s.config.Log.WithError(err).Error("streaming server ended")
		}
	}()
	return nil
}

// Stop closes every connection, which ends its session, and waits for the calls
// of all of them until ctx is done.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	started := s.address != ""
	s.stopped = true
	open := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	s.mu.Unlock()

	err := s.http.Close()
	for _, c := range open {
		_ = c.Close()
	}
	if !started {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-s.served
		s.calls.Wait()
	}()
	select {
	case <-ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("stop streaming server: sessions do not end: %w", ctx.Err())
	}
}

// enter counts a call in, unless the server is stopping.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.calls.Add(1)
	return true
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{kind}/{token}", s.serve)
	return mux
}

// serve redeems a token and runs its session on this connection.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	ticket, ok := s.tickets.redeem(kind(r.PathValue("kind")), r.PathValue("token"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	s.admit(r.Context())
	// A session that failed half-way leaves its connection open otherwise, and
	// one whose client is gone may be writing to it.
	defer closeHijacked(r.Context())
	defer context.AfterFunc(r.Context(), func() { closeHijacked(r.Context()) })()
	session := newSession(r.Context(), s, ticket)
	defer session.end()

	s.run(w, r, session)
}

// run speaks the protocol that the client asks for.
func (s *Server) run(w http.ResponseWriter, r *http.Request, session *session) {
	ticket, forward := session.ticket, session.ticket.kind == kindPortForward
	switch websocket := wsstream.IsWebSocketRequest(r); {
	case forward && offers(r, tunnelProtocol):
		tunnel(w, r, func(w http.ResponseWriter, r *http.Request) { s.serveForward(w, r, session) })
	case forward && websocket:
		portforward.ServePortForward(w, r, session, ticket.id, "", &portforward.V4Options{Ports: ticket.ports},
			idleTimeout, s.config.CreationTimeout, portforward.SupportedProtocols)
	case forward:
		s.serveForward(w, r, session)
	case websocket:
		s.serveWebSocket(w, r, session)
	default:
		s.serveSPDY(w, r, session)
	}
}
