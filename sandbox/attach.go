package sandbox

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
)

// handOverTime bounds the handing over of streams to the supervisor.
const handOverTime = 10 * time.Second

// Attach joins a client's streams to a running container's, and returns when
// the container's output ends or ctx is done; the container goes on.
func (m *Manager) Attach(ctx context.Context, containerID string, streams IO) error {
	c, err := m.findContainer(containerID)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	s := c.get()
	if !s.State.alive() {
		return fmt.Errorf("attach to container %s: it is %s: %w", s.ID, s.State, errdefs.ErrFailedPrecondition)
	}
	sup, err := m.supervisor()
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", s.ID, err)
	}
	client, err := newClient(streams, s.Config.GetTty())
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", s.ID, err)
	}
	defer client.abandon()
	// A client that goes away meanwhile is not noticed before: streams that
	// were sent and never asked for would stay open for a while.
	handOver, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOverTime)
	defer cancel()
	if err := sup.Attach(handOver, s.ID, client.remote()); err != nil {
		return fmt.Errorf("attach to container %s: %w", s.ID, unsaid(err, "attach to container "+s.ID))
	}
	client.handedOver()
	if s.Config.GetTty() && streams.Size != (TerminalSize{}) {
		m.redraw(ctx, s.ID, streams.Size)
	}
	m.serveAttached(ctx, client, s.ID)
	return ctx.Err()
}

// redraw sets a terminal's size by way of another one, since who draws on it does so
// anew for one that changes: the client that has just come sees nothing else of what
// was drawn before.
func (m *Manager) redraw(ctx context.Context, containerID string, size TerminalSize) {
	resize := m.resizer(ctx, containerID)
	resize(TerminalSize{Width: size.Width, Height: size.Height + 1})
	resize(size)
}
