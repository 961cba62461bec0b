package stream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// commandProtocols are the subprotocols of commands over SPDY. Version 1 is left
// out: its streams end each other.
var commandProtocols = []string{remotecommand.StreamProtocolV4Name, remotecommand.StreamProtocolV3Name, remotecommand.StreamProtocolV2Name}

// serveSPDY runs a command over SPDY.
func (s *Server) serveSPDY(w http.ResponseWriter, r *http.Request, session *session) {
	protocol, err := httpstream.Handshake(r, w, commandProtocols)
	if err != nil {
		return // the client was told
	}
	a := newArrivals(session.ticket.wanted, protocol != remotecommand.StreamProtocolV2Name)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, a.accept)
	if conn == nil {
		return
	}
	defer conn.Close()
	conn.SetIdleTimeout(idleTimeout)
	ctx, cancel := context.WithTimeout(session.ctx, s.config.CreationTimeout)
	defer cancel()
	if err := a.wait(ctx); err != nil {
		session.log.WithError(err).Debug("wait for streams")
		return
	}
	outcome := plainOutcome
	if protocol == remotecommand.StreamProtocolV4Name {
		outcome = outcomeOf
	}
	command{session, a.streams[:]}.run(outcome)
}

// arrivals takes the streams that a client opens, each that was asked for once,
// and refuses others.
type arrivals struct {
	// complete is closed once all are there; then the rest does not change.
	complete chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// missing are the channels of those that have not come, by name.
	missing map[string]int
	streams [channels]io.ReadWriteCloser
}

func newArrivals(wanted Wanted, resizes bool) *arrivals {
	a := &arrivals{complete: make(chan struct{}), missing: map[string]int{remotecommand.StreamTypeError: errorChannel}}
	for _, stream := range []struct {
		wanted  bool
		name    string
		channel int
	}{
		{wanted.Stdin, remotecommand.StreamTypeStdin, stdinChannel}, {wanted.Stdout, remotecommand.StreamTypeStdout, stdoutChannel},
		{wanted.Stderr, remotecommand.StreamTypeStderr, stderrChannel}, {wanted.TTY && resizes, remotecommand.StreamTypeResize, resizeChannel},
	} {
		if stream.wanted {
			a.missing[stream.name] = stream.channel
		}
	}
	return a
}

// accept takes a stream. It must not block: the connection waits for it.
func (a *arrivals) accept(stream httpstream.Stream, _ <-chan struct{}) error {
	name := stream.Headers().Get(remotecommand.StreamType)
	a.mu.Lock()
	defer a.mu.Unlock()
	channel, ok := a.missing[name]
	if !ok {
		return fmt.Errorf("stream %.100q: nobody asked for it, or it is there", name)
	}
	if err := reply(stream); err != nil {
		return err
	}
	delete(a.missing, name)
	a.streams[channel] = stream
	if len(a.missing) == 0 {
		close(a.complete)
	}
	return nil
}

// wait returns once all streams are there.
func (a *arrivals) wait(ctx context.Context) error {
	select {
	case <-a.complete:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the client did not open all of its streams: %w", ctx.Err())
	}
}

// reply tells the client that its stream is there. The connection would do so
// by itself, but not tell whether it went well, and what is written to a stream
// without a reply waits for it for ever.
func reply(stream httpstream.Stream) error {
	s, ok := stream.(interface {
		SendReply(headers http.Header, last bool) error
	})
	if !ok {
		return fmt.Errorf("stream of type %T", stream)
	}
	return s.SendReply(http.Header{}, false)
}
