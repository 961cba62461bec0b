package nodeapi

import (
	"context"
	"errors"
	"io"
	"sync"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
)

// maxChunk is the most output one message carries, in bytes.
const maxChunk = 64 << 10

// streams joins a client's gRPC stream to the streams of a process. The
// messages of Attach and Exec differ by type only, hence the two functions.
type streams struct {
	ctx context.Context
	// receive returns the next message of the client; io.EOF ends its input.
	receive func() (input, error)
	// send sends output to the client.
	send func(*nodev1.Output) error

	// resized, when not nil, is called with each new size of the terminal.
	resized func(*nodev1.TerminalSize)
	// leave, when not nil, is called when the client says that it leaves.
	leave func()

	sending sync.Mutex
	stdin   *io.PipeWriter
	resize  chan sandbox.TerminalSize
	io      sandbox.IO
}

// input is a client's message.
type input struct {
	stdin  []byte
	closed bool
	resize *nodev1.TerminalSize
	// detach says that the client leaves, and the process stays.
	detach bool
}

// wanted says which streams a client asked for.
type wanted struct {
	stdin, output, tty bool
	size               *nodev1.TerminalSize
}

// open makes the process's side. The caller runs pump in the background and
// calls close.
func (s *streams) open(w wanted) {
	s.io.TTY = w.tty
	s.resize = make(chan sandbox.TerminalSize, 1)
	s.io.Resize = s.resize
	if size, ok := sizeOf(w.size); ok {
		s.io.Size = size
	}
	s.setSize(w.size)
	if w.stdin {
		r, writer := io.Pipe()
		s.io.Stdin, s.stdin = r, writer
	}
	if !w.output {
		return
	}
	s.io.Stdout = &outputWriter{streams: s, stream: nodev1.Output_STDOUT}
	if !w.tty {
		s.io.Stderr = &outputWriter{streams: s, stream: nodev1.Output_STDERR}
	}
}

// pump hands the client's messages on until it goes, or close is called and
// the RPC has ended.
func (s *streams) pump() {
	defer close(s.resize)
	for {
		in, err := s.receive()
		if err != nil {
			s.closeStdin(err)
			return
		}
		s.setSize(in.resize)
		if _, ok := sizeOf(in.resize); ok && s.resized != nil {
			s.resized(in.resize)
		}
		if in.detach && s.leave != nil {
			s.leave()
		}
		if s.stdin == nil {
			continue
		}
		if len(in.stdin) > 0 {
			// An error means that the process reads no more.
			_, _ = s.stdin.Write(in.stdin)
		}
		if in.closed {
			s.closeStdin(io.EOF)
		}
	}
}

// closeStdin tells the process's side that no input comes any more: its end
// where the client said so, an error where it went away.
func (s *streams) closeStdin(reason error) {
	if s.stdin == nil {
		return
	}
	if errors.Is(reason, io.EOF) {
		reason = io.EOF
	}
	_ = s.stdin.CloseWithError(reason)
}

// close ends the process's side, so that nothing blocks on it.
func (s *streams) close() {
	if s.stdin != nil {
		_ = s.stdin.CloseWithError(io.ErrClosedPipe)
	}
	if r, ok := s.io.Stdin.(*io.PipeReader); ok {
		_ = r.CloseWithError(io.ErrClosedPipe)
	}
}

// sizeOf reads a size; false when there is none.
func sizeOf(size *nodev1.TerminalSize) (sandbox.TerminalSize, bool) {
	if size.GetWidth() == 0 || size.GetHeight() == 0 {
		return sandbox.TerminalSize{}, false
	}
	return sandbox.TerminalSize{Width: uint16(min(size.GetWidth(), 65535)), Height: uint16(min(size.GetHeight(), 65535))}, true
}

// setSize passes the newest size on; an older one nobody took is dropped.
func (s *streams) setSize(size *nodev1.TerminalSize) {
	next, ok := sizeOf(size)
	if !ok {
		return
	}
	for {
		select {
		case s.resize <- next:
			return
		default:
		}
		select {
		case <-s.resize:
		default:
		}
	}
}

// outputWriter sends what a process writes to the client.
type outputWriter struct {
	streams *streams
	stream  nodev1.Output_Stream
}

// Write sends b. It fails once the client is gone.
func (w *outputWriter) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		if err := w.streams.ctx.Err(); err != nil {
			return written, err
		}
		n := min(len(b), maxChunk)
		w.streams.sending.Lock()
		err := w.streams.send(&nodev1.Output{Stream: w.stream, Data: b[:n]})
		w.streams.sending.Unlock()
		if err != nil {
			return written, err
		}
		written += n
		b = b[n:]
	}
	return written, nil
}

// Close does nothing: the stream's end is told by the exit code.
func (w *outputWriter) Close() error { return nil }
