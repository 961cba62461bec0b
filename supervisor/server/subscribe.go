package server

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor"
)

const (
	// eventQueue is how many events may wait for one subscriber.
	eventQueue = 1024
	// maxSubscribers bounds the subscriptions at one time.
	maxSubscribers = 64
)

// broadcaster gives events to subscribers. It never waits for one: a
// subscriber that lies too far behind loses its subscription, and finds what
// it missed by List.
type broadcaster struct {
	mu     sync.Mutex // guards the fields below
	subs   map[chan supervisor.Event]struct{}
	closed bool
}

func (b *broadcaster) publish(e supervisor.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.subs {
		select {
		case ch <- e:
		default:
			delete(b.subs, ch)
			close(ch)
		}
	}
}

func (b *broadcaster) subscribe() (chan supervisor.Event, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errdefs.ErrUnavailable
	}
	if len(b.subs) >= maxSubscribers {
		return nil, fmt.Errorf("%d subscribers: %w", maxSubscribers, errdefs.ErrResourceExhausted)
	}
	if b.subs == nil {
		b.subs = map[chan supervisor.Event]struct{}{}
	}
	ch := make(chan supervisor.Event, eventQueue)
	b.subs[ch] = struct{}{}
	return ch, nil
}

func (b *broadcaster) unsubscribe(ch chan supervisor.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, ch)
}

func (b *broadcaster) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for ch := range b.subs {
		delete(b.subs, ch)
		close(ch)
	}
}

// Subscribe sends an empty event once the subscription stands, and then every
// event until the client goes.
func (s *Server) Subscribe(ctx context.Context, _ *v1.SubscribeRequest, stream v1.Supervisor_SubscribeServer) error {
	events, err := s.events.subscribe()
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer s.events.unsubscribe(events)
	if err := stream.Send(&v1.Event{}); err != nil {
		return err
	}
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return fmt.Errorf("subscribe: too slow, or the supervisor ends: %w", errdefs.ErrUnavailable)
			}
			m := &v1.Event{Type: string(e.Type), Id: e.ID, Exit: exitMessage(e.Exit), Kills: e.Kills, At: nanos(e.At)}
			if err := stream.Send(m); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
