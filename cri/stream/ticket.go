package stream

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// kind is what a session does, and the first part of its URL's path.
type kind string

const (
	kindExec        kind = "exec"
	kindAttach      kind = "attach"
	kindPortForward kind = "portforward"
)

// Wanted says which streams a client will open.
type Wanted struct {
	Stdin, Stdout, Stderr bool
	// TTY means a terminal, which has no Stderr.
	TTY bool
}

// ticket is a session that was prepared and not yet begun.
type ticket struct {
	kind kind
	// id is the container's, or the pod's to forward ports of.
	id     string
	cmd    []string
	wanted Wanted
	ports  []int32
	// expires is when the token stops to work.
	expires time.Time
}

// maxTickets bounds the sessions that were prepared and not yet begun.
const maxTickets = 1000

// tickets keeps prepared sessions by their tokens.
type tickets struct {
	life time.Duration

	// mu guards byToken.
	mu      sync.Mutex
	byToken map[string]ticket
}

func newTickets(life time.Duration) *tickets {
	return &tickets{life: life, byToken: map[string]ticket{}}
}

// issue keeps a session and returns its token, of 128 random bits. It fails
// with ErrResourceExhausted when too many are waiting.
func (t *tickets) issue(prepared ticket) (string, error) {
	now := time.Now()
	prepared.expires = now.Add(t.life)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byToken) >= maxTickets {
		for token, waiting := range t.byToken {
			if now.After(waiting.expires) {
				delete(t.byToken, token)
			}
		}
	}
	if len(t.byToken) >= maxTickets {
		return "", fmt.Errorf("prepare %s of %s: %d streams are waiting for their clients: %w",
			prepared.kind, prepared.id, maxTickets, errdefs.ErrResourceExhausted)
	}
	token := rand.Text()
	t.byToken[token] = prepared
	return token, nil
}

// redeem gives the session of a token, once. A token works only with the kind
// of URL it was issued for, and is spent by any other.
func (t *tickets) redeem(kind kind, token string) (ticket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	prepared, ok := t.byToken[token]
	delete(t.byToken, token)
	if !ok || prepared.kind != kind || time.Now().After(prepared.expires) {
		return ticket{}, false
	}
	return prepared, true
}

// Exec prepares a command in a container and returns the URL to stream it
// from. It fails with ErrUnavailable when the server does not run.
func (s *Server) Exec(containerID string, cmd []string, wanted Wanted) (string, error) {
	return s.prepare(ticket{kind: kindExec, id: containerID, cmd: cmd, wanted: wanted})
}

// Attach prepares to attach to a container; see Exec.
func (s *Server) Attach(containerID string, wanted Wanted) (string, error) {
	return s.prepare(ticket{kind: kindAttach, id: containerID, wanted: wanted})
}

// PortForward prepares to forward ports of a pod; see Exec. SPDY clients name
// a port with each stream, WebSocket clients use those given here.
func (s *Server) PortForward(podID string, ports []int32) (string, error) {
	return s.prepare(ticket{kind: kindPortForward, id: podID, ports: ports})
}

func (s *Server) prepare(prepared ticket) (string, error) {
	s.mu.Lock()
	address, stopped := s.address, s.stopped
	s.mu.Unlock()
	if address == "" || stopped {
		return "", fmt.Errorf("prepare %s of %s: the streaming server does not run: %w",
			prepared.kind, prepared.id, errdefs.ErrUnavailable)
	}
	token, err := s.tickets.issue(prepared)
	if err != nil {
		return "", err
	}
	u := url.URL{Scheme: "http", Host: address, Path: "/" + string(prepared.kind) + "/" + token}
	return u.String(), nil
}
