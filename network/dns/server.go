// Package dns answers a pod's questions for names: those of the containers on
// its networks itself, all others by asking the node's resolvers.
//
// It is a stub for a pod's C library and its like, not a resolver: it follows
// no referrals, keeps no cache, and trusts what the resolvers it forwards to
// say as far as the question goes. What it reads comes from containers and
// from the network, so everything has a bound: the size of a message, the
// questions at a time, the connections, and the time that each may take.
package dns

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/sirupsen/logrus"
)

// Bounds of what one pod may ask for.
const (
	// maxQuery is the longest question that is read, in bytes. One of 255
	// bytes of name with every option known is far below.
	maxQuery = 4096
	// maxAtOnce bounds the questions that resolvers are being asked; more than that
	// over UDP are dropped, and asked again by who wants to know. Names of our own
	// need nobody, so that resolvers that hang do not keep them from being answered.
	maxAtOnce = 128
	// maxConnections bounds open TCP connections.
	maxConnections = 32
	// idleLimit is how long a TCP connection may take for the next question,
	// or for taking an answer.
	idleLimit = 5 * time.Second
	// answerLimit bounds the time for one answer: what C libraries wait.
	answerLimit = 5 * time.Second
)

// Server answers the questions of one pod. Close ends it.
type Server struct {
	answerer
	udp net.PacketConn
	tcp net.Listener

	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	// slots has a token for each question that resolvers are being asked.
	slots chan struct{}

	// mu guards conns, the open connections; nil after Close.
	mu    sync.Mutex
	conns map[net.Conn]bool
}

// Serve answers what comes over udp and tcp, which it closes in the end, until
// Close.
func Serve(udp net.PacketConn, tcp net.Listener, zone Zone, upstream Upstream) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		answerer: answerer{zone: zone, upstream: upstream},
		udp:      udp, tcp: tcp, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, maxAtOnce), conns: map[net.Conn]bool{},
	}
	s.done.Go(s.serveUDP)
	s.done.Go(s.serveTCP)
	return s
}

// Close stops answering, and waits until nothing is under way.
func (s *Server) Close() {
	s.cancel()
	s.mu.Lock()
	for conn := range s.conns {
		conn.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.udp.Close()
	s.tcp.Close()
	s.done.Wait()
}

// serveUDP reads questions until the socket is closed.
func (s *Server) serveUDP() {
	buffer := make([]byte, maxQuery)
	for {
		n, from, err := s.udp.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Such as an ICMP error of an answer that nobody waited for.
			if !s.goOn(err) {
				return
			}
			continue
		}
		answer, query := s.local(append([]byte(nil), buffer[:n]...), false)
		if query == nil {
			s.send(answer, from)
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			continue
		}
		s.done.Go(func() {
			defer func() { <-s.slots }()
			s.send(s.ask(query, false), from)
		})
	}
}

// send sends an answer, if there is one, to who may be gone.
func (s *Server) send(answer []byte, to net.Addr) {
	if answer != nil {
		_, _ = s.udp.WriteTo(answer, to)
	}
}

// goOn waits a moment after an error of a socket, so as not to spin; false
// when the server is closed.
func (s *Server) goOn(err error) bool {
	logrus.WithError(err).Debug("socket of a pod's DNS")
	timer := time.NewTimer(10 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-s.ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// serveTCP accepts connections until the socket is closed.
func (s *Server) serveTCP() {
	for {
		conn, err := s.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !s.goOn(err) {
				return
			}
			continue
		}
		if !s.admit(conn) {
			conn.Close()
			continue
		}
		s.done.Go(func() {
			defer s.dismiss(conn)
			s.converse(conn)
		})
	}
}

// admit notes a connection, unless there are enough.
func (s *Server) admit(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil || len(s.conns) >= maxConnections {
		return false
	}
	s.conns[conn] = true
	return true
}

func (s *Server) dismiss(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

// converse answers the questions of one connection, one after the other.
func (s *Server) converse(conn net.Conn) {
	for s.ctx.Err() == nil {
		if conn.SetDeadline(time.Now().Add(idleLimit)) != nil {
			return
		}
		raw, err := readFrame(conn)
		if err != nil {
			return
		}
		answer, query := s.local(raw, true)
		if query != nil {
			select {
			case s.slots <- struct{}{}:
			case <-s.ctx.Done():
				return
			}
			answer = s.ask(query, true)
			<-s.slots
		}
		if answer == nil || conn.SetDeadline(time.Now().Add(idleLimit)) != nil || writeFrame(conn, answer) != nil {
			return
		}
	}
}

// ask has a question answered by the resolvers.
func (s *Server) ask(query *dns.Msg, tcp bool) []byte {
	ctx, cancel := context.WithTimeout(s.ctx, answerLimit)
	defer cancel()
	return s.forwarded(ctx, query, tcp)
}
