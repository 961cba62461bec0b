package stream

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
)

// conn is a client's connection that knows when it is over. net/http stops
// watching a connection that is handed to SPDY or WebSocket; both read from it
// all the time, so the first read that fails tells.
type conn struct {
	net.Conn
	server *Server
	// hijacked is set once the connection no longer belongs to net/http.
	hijacked atomic.Bool
	closed   atomic.Bool
	// waiting: it has shown no token yet. The server's mu guards it.
	waiting bool
	// life is done when the connection is over.
	life context.Context
	end  context.CancelFunc
}

type connKey struct{}

// bind returns a context that holds the connection and ends with it.
func (c *conn) bind(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(context.WithValue(ctx, connKey{}, c))
	context.AfterFunc(c.life, cancel)
	return ctx
}

// closeHijacked closes the connection of a request when it no longer belongs
// to net/http.
func closeHijacked(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*conn); ok && c.hijacked.Load() {
		_ = c.Close()
	}
}

// Read reads, and takes any end but a deadline for the connection's.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.end()
	}
	return n, err
}

// Close may be called more than once: only the first call can fail. spdystream
// would wait a second for somebody to read the error of another.
func (c *conn) Close() error {
	c.end()
	if c.closed.Swap(true) {
		return nil
	}
	c.server.forget(c)
	return c.Conn.Close()
}

// forget lets a closed connection go.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.admitLocked(c)
}

// admit lets the connection of a request no longer count as one that waits.
func (s *Server) admit(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*conn); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.admitLocked(c)
	}
}

func (s *Server) admitLocked(c *conn) {
	if c.waiting {
		c.waiting = false
		s.waiting--
	}
}

// trackedListener wraps each connection and lets the server know of it.
type trackedListener struct {
	net.Listener
	server *Server
}

// Accept waits for the next connection. Who comes when too many wait is sent
// away: every user of the node, and every container in its network, can connect.
func (l *trackedListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c, err := l.server.track(raw)
		if c != nil || err != nil {
			return c, err
		}
	}
}

// track makes a connection one of the server's; nil when too many wait.
func (s *Server) track(raw net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopped:
		_ = raw.Close()
		return nil, net.ErrClosed
	case s.waiting >= s.config.MaxWaiting:
		_ = raw.Close()
		return nil, nil
	}
	c := &conn{Conn: raw, server: s, waiting: true}
	c.life, c.end = context.WithCancel(context.Background())
	s.conns[c] = struct{}{}
	s.waiting++
	return c, nil
}
