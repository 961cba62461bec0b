package sandbox

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/supervisor"
)

// client joins a client's streams to pipes, the far ends of which are handed
// to the supervisor. A nil client is one that wants no streams.
type client struct {
	io IO
	// stdin is written, stdout and stderr are read here.
	stdin, stdout, stderr *os.File
	// far are the other ends.
	far supervisor.Streams
}

// newClient makes pipes for those streams that are wanted. With a terminal
// there is no separate standard error.
func newClient(streams IO, tty bool) (*client, error) {
	c := &client{io: streams, far: supervisor.Streams{Wait: streams.Wait}}
	if tty {
		c.io.Stderr = nil
	}
	for _, p := range []struct {
		wanted      bool
		read, write **os.File
	}{
		{c.io.Stdin != nil, &c.far.Stdin, &c.stdin},
		{c.io.Stdout != nil, &c.stdout, &c.far.Stdout},
		{c.io.Stderr != nil, &c.stderr, &c.far.Stderr},
	} {
		if !p.wanted {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			c.abandon()
			return nil, fmt.Errorf("make pipe: %w", err)
		}
		*p.read, *p.write = r, w
	}
	return c, nil
}

// remote gives the far ends.
func (c *client) remote() supervisor.Streams {
	if c == nil {
		return supervisor.Streams{}
	}
	return c.far
}

// handedOver closes the far ends, of which the supervisor has its own copies.
func (c *client) handedOver() {
	closeAll(c.far.Stdin, c.far.Stdout, c.far.Stderr)
	c.far = supervisor.Streams{}
}

// abandon closes everything.
func (c *client) abandon() {
	if c == nil {
		return
	}
	c.handedOver()
	c.detach()
}

// detach closes the near ends; the container goes on.
func (c *client) detach() { closeAll(c.stdin, c.stdout, c.stderr) }

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// pump copies until the process's output has ended, and then closes the
// client's writers. Input is copied in a goroutine that ends when the
// client's reader does, which is closed by its owner.
func (c *client) pump() {
	if c.stdin != nil {
		go func() {
			_, _ = io.Copy(c.stdin, c.io.Stdin)
			c.stdin.Close()
		}()
	}
	var wg sync.WaitGroup
	for _, s := range []struct {
		from *os.File
		to   io.WriteCloser
	}{{c.stdout, c.io.Stdout}, {c.stderr, c.io.Stderr}} {
		if s.from == nil {
			continue
		}
		wg.Go(func() {
			copyOutput(s.to, s.from)
			// A client that takes no more must not hold the process up.
			s.from.Close()
			s.to.Close()
		})
	}
	wg.Wait()
}

// copyBuffers are what output is copied by: a probe writes hardly any, and they
// come by the hundred a second.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copyOutput copies until either side ends.
func copyOutput(to io.Writer, from *os.File) {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	// A file would bring a buffer of its own.
	_, _ = io.CopyBuffer(to, struct{ io.Reader }{from}, buf[:])
}

// drain limits how long pump may go on: a process that has ended may have
// left its output open to others.
func (c *client) drain(limit time.Duration) {
	deadline := time.Now().Add(limit)
	for _, f := range []*os.File{c.stdout, c.stderr} {
		if f != nil {
			_ = f.SetReadDeadline(deadline)
		}
	}
}

// follow copies the sizes of the client's terminal until they end or ctx is done.
func follow(ctx context.Context, sizes <-chan TerminalSize, resize func(TerminalSize)) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return
			}
			resize(size)
		case <-ctx.Done():
			return
		}
	}
}

// serve copies in the background; Manager.Close waits for it.
func (c *client) serve(m *Manager, id string) *Attachment {
	done := make(chan struct{})
	c.handedOver()
	m.spawn(func() {
		defer close(done)
		m.serveAttached(m.ctx, c, id)
	})
	return &Attachment{Done: done}
}

// serveAttached copies until the container's output ends or ctx is done.
func (m *Manager) serveAttached(ctx context.Context, c *client, id string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, c.detach)
	defer stop()
	var wg sync.WaitGroup
	if c.io.Resize != nil {
		wg.Go(func() { follow(ctx, c.io.Resize, m.resizer(ctx, id)) })
	}
	if c.stdout != nil || c.stderr != nil {
		c.pump()
	} else {
		c.pump()
		m.waitEnd(ctx, id)
	}
	cancel()
	wg.Wait()
}

// waitEnd waits for a container that may be gone already.
func (m *Manager) waitEnd(ctx context.Context, id string) {
	if c, err := m.findContainer(id); err == nil {
		select {
		case <-c.end():
		case <-ctx.Done():
		}
	}
}

// resizer sets the size of a container's terminal.
func (m *Manager) resizer(ctx context.Context, id string) func(TerminalSize) {
	return func(size TerminalSize) {
		sup, err := m.supervisor()
		if err == nil {
			err = sup.Resize(ctx, id, size.Width, size.Height)
		}
		if err != nil {
			m.log.WithError(err).Debugf("resize terminal of container %s", id)
		}
	}
}
