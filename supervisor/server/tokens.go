package server

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor/fdpass"
)

const (
	// tokenLife is how long descriptors wait for the request that names
	// them.
	tokenLife = 30 * time.Second
	// maxTokens bounds those that wait.
	maxTokens = 1024
	// receiveTimeout bounds the receiving of one set.
	receiveTimeout = 5 * time.Second
	// acceptPause is waited after a connection that could not be accepted.
	acceptPause = 50 * time.Millisecond
)

// tokens holds descriptors received over the second socket until a request
// takes them.
type tokens struct {
	mu     sync.Mutex // guards waiting
	closed bool
	// waiting is by token. The timer closes a set that nobody took.
	waiting map[string]*waitingSet
}

type waitingSet struct {
	set   *fdpass.Set
	timer *time.Timer
}

func newTokens() *tokens { return &tokens{waiting: map[string]*waitingSet{}} }

// serve receives descriptors until l is closed.
func (t *tokens) serve(l *net.UnixListener) {
	var group sync.WaitGroup
	defer group.Wait()
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Such as that there are too many open files, which passes.
			logrus.WithError(err).Warn("accept descriptors")
			<-time.After(acceptPause)
			continue
		}
		group.Go(func() {
			defer conn.Close()
			if err := t.receive(conn); err != nil {
				logrus.WithError(err).Warn("receive descriptors")
			}
		})
	}
}

func (t *tokens) receive(conn *net.UnixConn) error {
	if err := conn.SetDeadline(time.Now().Add(receiveTimeout)); err != nil {
		return err
	}
	if err := fdpass.RequireRoot(conn); err != nil {
		return err
	}
	token, set, err := fdpass.Receive(conn)
	if err != nil {
		return err
	}
	if err := t.put(string(token), set); err != nil {
		set.Close()
		return err
	}
	return fdpass.Acknowledge(conn)
}

func (t *tokens) put(token string, set *fdpass.Set) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.waiting) >= maxTokens || t.waiting[token] != nil {
		return errors.New("too many descriptors wait, or the token is in use")
	}
	t.waiting[token] = &waitingSet{set: set, timer: time.AfterFunc(tokenLife, func() {
		if set := t.remove(token); set != nil {
			set.Close()
		}
	})}
	return nil
}

// take returns the descriptors a request names, which are the caller's from
// then on. No streams, or an empty token, give an empty set.
func (t *tokens) take(streams *v1.Streams) (*fdpass.Set, error) {
	if streams == nil || len(streams.Token) == 0 {
		return &fdpass.Set{}, nil
	}
	if set := t.remove(string(streams.Token)); set != nil {
		return set, nil
	}
	return nil, fmt.Errorf("descriptors were not sent or have expired: %w", errdefs.ErrInvalidArgument)
}

func (t *tokens) remove(token string) *fdpass.Set {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.waiting[token]
	if w == nil {
		return nil
	}
	w.timer.Stop()
	delete(t.waiting, token)
	return w.set
}

func (t *tokens) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for token, w := range t.waiting {
		w.timer.Stop()
		w.set.Close()
		delete(t.waiting, token)
	}
}
