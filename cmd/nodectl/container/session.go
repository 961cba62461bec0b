package container

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
)

// maxInput is the most input one message carries, in bytes.
const maxInput = 32 << 10

// detachPatience is how long the other side may take to let the person go.
const detachPatience = 5 * time.Second

// link is a stream of Attach or Exec. Sending is not safe for concurrent use.
type link interface {
	sendStdin(b []byte) error
	sendStdinClosed() error
	sendSize(size *nodev1.TerminalSize) error
	receive() (reply, error)
	// sendDetach tells that the person leaves: the other side ends the call.
	sendDetach() error
}

// reply is a message of the agent.
type reply struct {
	attached *nodev1.Attached
	output   *nodev1.Output
	exit     *int32
}

// session joins the person's streams to those of a process.
type session struct {
	cli *command.CLI
	// tty says that the process has a terminal; stdin that input goes to it;
	// proxied that signals do.
	tty, stdin, proxied bool
	// out and err take what the process writes.
	out, err io.Writer
	// keys detach; only with both of the above.
	keys []byte
	// attached, when not nil, is called once the streams are joined.
	attached func(id string)

	// left says that the person left.
	left atomic.Bool
	// sending is held by who sends on the link.
	sending sync.Mutex
	link    link
}

// run opens the link and serves it until the process ends, whose exit code
// it returns, or until the person detaches (terminal.ErrDetached). The
// terminal is as before when it returns.
func (s *session) run(ctx context.Context, open func(context.Context) (link, error)) (code int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	raw := s.tty && s.stdin && terminal.Is(s.cli.In)
	if raw {
		restore, err := terminal.Raw(s.cli.In, s.proxied)
		if err != nil {
			return 0, err
		}
		defer restore()
	}
	width, height := terminal.Size(s.cli.Out)
	if s.link, err = open(ctx); err != nil {
		return 0, err
	}
	if s.tty {
		wait := terminal.FollowSize(ctx, s.cli.Out, [2]int{width, height}, func(w, h int) {
			s.sending.Lock()
			defer s.sending.Unlock()
			_ = s.link.sendSize(size(w, h)) // receive tells why it failed
		})
		defer wait()
		defer cancel(nil)
	}
	if s.stdin {
		// It is left in its read of the terminal when the process ends:
		// nothing can wake it, and nodectl ends then.
		go s.copyInput(cancel)
	}
	code, err = s.copyOutput()
	if err != nil && (s.left.Load() || errors.Is(context.Cause(ctx), terminal.ErrDetached)) {
		err = terminal.ErrDetached
	}
	return code, err
}

// size makes a message of a terminal's size; nil when there is none.
func size(width, height int) *nodev1.TerminalSize {
	if width <= 0 || height <= 0 {
		return nil
	}
	return &nodev1.TerminalSize{Width: uint32(width), Height: uint32(height)}
}

// terminalSize is the size of the person's terminal, where the process has one.
func terminalSize(cli *command.CLI, tty bool) *nodev1.TerminalSize {
	if !tty {
		return nil
	}
	return size(terminal.Size(cli.Out))
}

// copyInput sends the person's input until it ends or they detach.
func (s *session) copyInput(cancel context.CancelCauseFunc) {
	var in io.Reader = s.cli.In
	if s.tty {
		in = terminal.Detachable(in, s.keys)
	}
	buf := make([]byte, maxInput)
	for {
		n, err := in.Read(buf)
		if n > 0 && s.send(func() error { return s.link.sendStdin(buf[:n]) }) != nil {
			return // receive tells why
		}
		switch {
		case errors.Is(err, terminal.ErrDetached):
			s.left.Store(true)
			if s.send(s.link.sendDetach) != nil {
				cancel(err)
				return
			}
			// The other side ends the call, soon.
			time.AfterFunc(detachPatience, func() { cancel(err) })
			return
		case err != nil:
			_ = s.send(s.link.sendStdinClosed)
			return
		}
	}
}

func (s *session) send(message func() error) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return message()
}

// copyOutput writes what the process writes until it ends.
func (s *session) copyOutput() (code int, err error) {
	for {
		r, err := s.link.receive()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = command.ErrLost
			}
			return 0, err
		}
		switch {
		case r.exit != nil:
			return int(*r.exit), nil
		case r.attached != nil && s.attached != nil:
			s.attached(r.attached.GetId())
		case r.output.GetStream() == nodev1.Output_STDERR:
			_, err = s.err.Write(r.output.GetData())
		default:
			_, err = s.out.Write(r.output.GetData())
		}
		if err != nil {
			return 0, err
		}
	}
}

// attachLink is a link made of an Attach stream.
type attachLink struct {
	stream nodev1.Containers_AttachClient
}

// openAttach begins an Attach call.
func openAttach(ctx context.Context, client nodev1.ContainersClient, start *nodev1.AttachStart) (link, error) {
	stream, err := client.Attach(ctx)
	if err != nil {
		return nil, err
	}
	// A failure is told by receive.
	_ = stream.Send(&nodev1.AttachRequest{Message: &nodev1.AttachRequest_Start{Start: start}})
	return &attachLink{stream}, nil
}

func (l *attachLink) sendStdin(b []byte) error {
	return l.stream.Send(&nodev1.AttachRequest{Message: &nodev1.AttachRequest_Stdin{Stdin: b}})
}

func (l *attachLink) sendStdinClosed() error {
	return l.stream.Send(&nodev1.AttachRequest{Message: &nodev1.AttachRequest_StdinClosed{StdinClosed: true}})
}

func (l *attachLink) sendSize(size *nodev1.TerminalSize) error {
	return l.stream.Send(&nodev1.AttachRequest{Message: &nodev1.AttachRequest_Resize{Resize: size}})
}

func (l *attachLink) receive() (reply, error) {
	m, err := l.stream.Recv()
	if err != nil {
		return reply{}, err
	}
	r := reply{attached: m.GetAttached(), output: m.GetOutput()}
	if e, ok := m.GetMessage().(*nodev1.AttachResponse_Exit); ok {
		r.exit = &e.Exit
	}
	return r, nil
}

func (l *attachLink) sendDetach() error {
	return l.stream.Send(&nodev1.AttachRequest{Message: &nodev1.AttachRequest_Detach{Detach: true}})
}

// execLink is a link made of an Exec stream.
type execLink struct {
	stream nodev1.Containers_ExecClient
}

// openExec begins an Exec call.
func openExec(ctx context.Context, client nodev1.ContainersClient, start *nodev1.ExecStart) (link, error) {
	stream, err := client.Exec(ctx)
	if err != nil {
		return nil, err
	}
	// A failure is told by receive.
	_ = stream.Send(&nodev1.ExecRequest{Message: &nodev1.ExecRequest_Start{Start: start}})
	return &execLink{stream}, nil
}

func (l *execLink) sendStdin(b []byte) error {
	return l.stream.Send(&nodev1.ExecRequest{Message: &nodev1.ExecRequest_Stdin{Stdin: b}})
}

func (l *execLink) sendStdinClosed() error {
	return l.stream.Send(&nodev1.ExecRequest{Message: &nodev1.ExecRequest_StdinClosed{StdinClosed: true}})
}

func (l *execLink) sendSize(size *nodev1.TerminalSize) error {
	return l.stream.Send(&nodev1.ExecRequest{Message: &nodev1.ExecRequest_Resize{Resize: size}})
}

func (l *execLink) receive() (reply, error) {
	m, err := l.stream.Recv()
	if err != nil {
		return reply{}, err
	}
	r := reply{attached: m.GetAttached(), output: m.GetOutput()}
	if e, ok := m.GetMessage().(*nodev1.ExecResponse_Exit); ok {
		r.exit = &e.Exit
	}
	return r, nil
}

func (l *execLink) sendDetach() error {
	return l.stream.Send(&nodev1.ExecRequest{Message: &nodev1.ExecRequest_Detach{Detach: true}})
}
