package supervisor

import (
	"context"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
)

// eventBuffer is how many events may wait for a subscriber before the
// supervisor's stream waits too; when that overflows it is closed.
const eventBuffer = 1024

// Subscribe returns the events from now on. The channel is closed when ctx
// ends, when the connection is lost, or when the subscriber is too slow;
// events missed are found by List. Each subscription has a connection of its
// own, so that a slow subscriber holds up no call.
func (c *Client) Subscribe(ctx context.Context) (<-chan Event, error) {
	conn, err := dial(ctx, c.socket)
	if err != nil {
		return nil, err
	}
	stream, err := v1.NewSupervisorClient(conn).Subscribe(ctx, &v1.SubscribeRequest{})
	if err == nil {
		// The first message only says that the subscription stands.
		_, err = stream.Recv()
	}
	if err != nil {
		conn.Close()
		return nil, native(err)
	}
	events := make(chan Event, eventBuffer)
	go func() {
		defer close(events)
		defer conn.Close()
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case events <- Event{Type: EventType(m.Type), ID: m.Id, Exit: exitFrom(m.Exit), Kills: m.Kills, At: timeFrom(m.At)}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events, nil
}
