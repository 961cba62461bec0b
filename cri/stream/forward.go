package stream

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// maxForwards bounds the connections of one session, complete or not.
const maxForwards = 1000

// serveForward forwards ports over SPDY until the client goes.
func (s *Server) serveForward(w http.ResponseWriter, r *http.Request, session *session) {
	if _, err := httpstream.Handshake(r, w, portforward.SupportedProtocols); err != nil {
		return // the client was told
	}
	f := &forwards{session: session, waiting: map[string]*pair{}}
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, f.accept)
	if conn == nil {
		return
	}
	defer conn.Close()
	conn.SetIdleTimeout(idleTimeout)
	f.start(conn)
	select {
	case <-conn.CloseChan():
	case <-session.ctx.Done():
	}
	f.end()
}

// forwards are the connections of one session: for each the client opens a
// stream for data and one for an error, which have the request's ID in common.
type forwards struct {
	*session

	// mu guards what follows.
	mu   sync.Mutex
	conn httpstream.Connection
	// waiting are those that lack a stream, by ID.
	waiting map[string]*pair
	// count is how many there are, with those that lack none.
	count int
	ended bool
}

// pair is one connection.
type pair struct {
	port          int32
	data, failure httpstream.Stream
	// expiry gives the pair up.
	expiry *time.Timer
}

// start gives the connection, on which streams may have come already.
func (f *forwards) start(conn httpstream.Connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn = conn
}

// end gives up those that lack a stream; the session's end waits for the others.
func (f *forwards) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for _, p := range f.waiting {
		p.expiry.Stop()
	}
}

// accept takes a stream. It must not block: the connection waits for it.
func (f *forwards) accept(stream httpstream.Stream, _ <-chan struct{}) error {
	port, err := strconv.ParseUint(stream.Headers().Get(portforward.PortHeader), 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("%.100q is no port", stream.Headers().Get(portforward.PortHeader))
	}
	kind := stream.Headers().Get(portforward.StreamType)
	if kind != portforward.StreamTypeData && kind != portforward.StreamTypeError {
		return fmt.Errorf("stream %.100q is not known", kind)
	}
	id := requestID(stream)
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := f.pairOf(id)
	if err != nil {
		return err
	}
	switch {
	case kind == portforward.StreamTypeError && p.failure == nil:
		p.failure = stream
	case kind == portforward.StreamTypeData && p.data == nil:
		p.data, p.port = stream, int32(port)
	default:
		return fmt.Errorf("the %s stream of request %.100q is there", kind, id)
	}
	if err := reply(stream); err != nil {
		return err
	}
	if p.data != nil && p.failure != nil {
		p.expiry.Stop()
		delete(f.waiting, id)
		f.work.Go(func() { f.forward(p) })
	}
	return nil
}

// pairOf finds the pair of an ID, or makes it.
func (f *forwards) pairOf(id string) (*pair, error) {
	switch p := f.waiting[id]; {
	case f.ended:
		return nil, errors.New("the session has ended")
	case p != nil:
		return p, nil
	case f.count >= maxForwards:
		return nil, fmt.Errorf("there are %d connections", maxForwards)
	}
	p := &pair{}
	p.expiry = time.AfterFunc(f.server.config.CreationTimeout, func() { f.expire(id, p) })
	f.waiting[id] = p
	f.count++
	return p, nil
}

// expire gives up a pair that lacks a stream.
func (f *forwards) expire(id string, p *pair) {
	f.mu.Lock()
	given := !f.ended && f.waiting[id] == p
	if given {
		delete(f.waiting, id)
	}
	f.mu.Unlock()
	if given {
		f.drop(p, errors.New("the client did not open both streams"))
	}
}

// forward serves a pair.
func (f *forwards) forward(p *pair) {
	f.drop(p, f.PortForward(f.ctx, f.ticket.id, "", p.port, p.data))
}

// drop ends a pair's streams, and tells its error.
func (f *forwards) drop(p *pair, err error) {
	f.mu.Lock()
	f.count--
	conn := f.conn
	f.mu.Unlock()
	if err != nil && p.failure != nil {
		_, _ = fmt.Fprint(p.failure, err) // the client may be gone
	}
	for _, stream := range []httpstream.Stream{p.data, p.failure} {
		switch {
		case stream == nil:
			continue
		case err != nil:
			// So that it makes a connection anew.
			_ = stream.Reset()
		default:
			_ = stream.Close()
		}
		if conn != nil {
			conn.RemoveStreams(stream)
		}
	}
}

// requestID is what both streams of a pair have in common. Clients that name
// none open the stream for the error first.
func requestID(stream httpstream.Stream) string {
	if id := stream.Headers().Get(portforward.PortForwardRequestIDHeader); id != "" {
		return id
	}
	if id := stream.Identifier(); stream.Headers().Get(portforward.StreamType) == portforward.StreamTypeData {
		return strconv.FormatUint(uint64(id-2), 10)
	}
	return strconv.FormatUint(uint64(stream.Identifier()), 10)
}
