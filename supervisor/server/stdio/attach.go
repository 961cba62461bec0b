package stdio

import (
	"fmt"
	"maps"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxClients is how many clients may be attached to one container at once.
const maxClients = 64

// Streams are one client's descriptors; any may be nil. Attach takes them
// over.
type Streams struct {
	Stdin, Stdout, Stderr *os.File
	// Wait slows the container down to this client, also when it takes nothing.
	Wait bool
}

// Close closes the descriptors.
func (s *Streams) Close() {
	for _, f := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// Attach connects a client. Its descriptors are closed when the container has
// ended, or when the client is gone or too slow.
func (o *IO) Attach(s Streams) error {
	for _, f := range []**os.File{&s.Stdin, &s.Stdout, &s.Stderr} {
		if err := pollable(f); err != nil {
			s.Close()
			return fmt.Errorf("attach: %w", err)
		}
	}
	o.mu.Lock()
	switch {
	case o.closed:
		o.mu.Unlock()
		s.Close()
		return fmt.Errorf("attach: container has ended: %w", errdefs.ErrFailedPrecondition)
	case len(o.clients) >= maxClients:
		o.mu.Unlock()
		s.Close()
		return fmt.Errorf("attach: %d clients are attached: %w", maxClients, errdefs.ErrResourceExhausted)
	}
	c := &client{stdin: s.Stdin}
	if s.Stdin != nil && o.cfg.StdinOnce && !o.once {
		o.once = true
		c.endsInput = true
	}
	c.outs[0] = newQueue(s.Stdout, s.Wait)
	c.outs[1] = newQueue(s.Stderr, s.Wait)
	c.gone = func() { o.detach(c) }
	if o.clients == nil {
		o.clients = map[*client]struct{}{}
	}
	o.clients[c] = struct{}{}
	ready := o.input != nil || o.console == nil
	o.mu.Unlock()

	c.start()
	if ready {
		o.startInput(c)
	}
	return nil
}

// pollable replaces *f by a file that Go polls, so that no thread ever waits
// for a client.
func pollable(f **os.File) error {
	if *f == nil {
		return nil
	}
	fd, err := unix.FcntlInt((*f).Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	(*f).Close()
	*f = os.NewFile(uintptr(fd), "client")
	return nil
}

// startInput begins to carry a client's input. It ends with the client, with
// the client's input, or with the container.
func (o *IO) startInput(c *client) {
	if c.stdin == nil {
		return
	}
	go func() {
		defer c.inputEnded()
		raw, err := c.stdin.SyscallConn()
		if err != nil {
			return
		}
		for {
			failed := false
			n, err := readWhenReady(raw, func(data []byte) { failed = !o.writeInput(data) })
			if err == nil && n == 0 {
				if c.endsInput {
					o.closeInput()
				}
				return
			}
			if err != nil || failed {
				return
			}
		}
	}()
}

// writeInput gives data to the container; false when it takes no more.
func (o *IO) writeInput(data []byte) bool {
	o.mu.Lock()
	in := o.input
	o.mu.Unlock()
	if in == nil {
		return false
	}
	_, err := in.Write(data)
	return err == nil
}

// closeInput gives the container EOF. A terminal has none to give.
func (o *IO) closeInput() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.input != nil && o.master == nil {
		o.input.Close()
		o.input = nil
	}
}

// broadcast gives output to every client.
func (o *IO) broadcast(name string, data []byte) {
	for c := range o.snapshot() {
		c.output(name).add(data)
	}
}

// snapshot is the set of clients now.
func (o *IO) snapshot() map[*client]struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.clients) == 0 {
		return nil
	}
	return maps.Clone(o.clients)
}

func (o *IO) detach(c *client) {
	o.mu.Lock()
	delete(o.clients, c)
	o.mu.Unlock()
}
