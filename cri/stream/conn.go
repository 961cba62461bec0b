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
}

// trackedListener wraps each connection and lets the server know of it.
type trackedListener struct {
	net.Listener
	server *Server
}

// Accept waits for the next connection.
func (l *trackedListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, server: l.server}
	c.life, c.end = context.WithCancel(context.Background())
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	if l.server.stopped {
		c.end()
		_ = raw.Close()
		return nil, net.ErrClosed
	}
	l.server.conns[c] = struct{}{}
	return c, nil
}
