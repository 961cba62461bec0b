package nodeapi

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc"
)

// attachStream is the server's side of an Attach call.
type attachStream = grpc.BidiStreamingServer[nodev1.AttachRequest, nodev1.AttachResponse]

// Attach joins a container's streams, and starts it when asked to.
func (s *containers) Attach(stream attachStream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	req := first.GetStart()
	if req == nil {
		return failf(errdefs.ErrInvalidArgument, "attach: the first message must be start")
	}
	c, err := s.find(req.GetContainer())
	if err != nil {
		return err
	}
	if err := s.checkAttach(c, req.GetStart()); err != nil {
		return err
	}
	bound, cancel := s.bound(stream.Context())
	defer cancel()
	ctx, leave := context.WithCancelCause(bound)
	defer leave(nil)
	st := &streams{
		ctx: ctx,
		receive: func() (input, error) {
			m, err := stream.Recv()
			return input{stdin: m.GetStdin(), closed: m.GetStdinClosed(), resize: m.GetResize(), detach: m.GetDetach()}, err
		},
		leave: func() { leave(errLeft) },
		send: func(o *nodev1.Output) error {
			return stream.Send(&nodev1.AttachResponse{Message: &nodev1.AttachResponse_Output{Output: o}})
		},
	}
	st.resized = func(size *nodev1.TerminalSize) { s.emitResize(c, size) }
	// A person's run must lose nothing of what is written, however slow the
	// terminal is.
	st.io.Wait = true
	st.open(wanted{
		stdin: req.GetStdin() && c.Config.GetStdin(), output: req.GetOutput(), tty: c.Config.GetTty(), size: req.GetSize(),
	})
	defer st.close()
	if !s.goBackground(func(context.Context) { st.pump() }) {
		return failf(errdefs.ErrUnavailable, "the agent is stopping")
	}
	if req.GetStart() && !running(c) {
		if err := s.startedByPerson(c); err != nil {
			return err
		}
	}
	s.emitContainer("attach", c)
	release := s.hold(c)
	defer release()
	err = s.serveAttach(ctx, stream, st, c, req.GetStart() && !running(c))
	if err != nil && errors.Is(context.Cause(ctx), errLeft) {
		s.emitContainer("detach", c)
		return nil
	}
	return err
}

// checkAttach refuses to attach to a container in docker's words.
func (s *Server) checkAttach(c sandbox.Container, start bool) error {
	switch {
	case c.State == sandbox.ContainerPaused && start:
		return errStartPaused
	case c.State == sandbox.ContainerPaused:
		return failf(errdefs.ErrFailedPrecondition, "You cannot attach to a paused container, unpause it first")
	case start || running(c):
		return nil
	case s.restarting(c):
		return failf(errdefs.ErrFailedPrecondition, "You cannot attach to a restarting container, wait until it is running")
	}
	return failf(errdefs.ErrFailedPrecondition, "You cannot attach to a stopped container, start it first")
}

// serveAttach serves the streams until the output ends, then tells the exit
// code.
func (s *containers) serveAttach(ctx context.Context, stream attachStream, st *streams, c sandbox.Container, start bool) error {
	attached := func() error {
		st.sending.Lock()
		defer st.sending.Unlock()
		return stream.Send(&nodev1.AttachResponse{
			Message: &nodev1.AttachResponse_Attached{Attached: &nodev1.Attached{Id: c.ID}},
		})
	}
	if start {
		attachment, err := s.start(ctx, c, &st.io)
		if err != nil {
			return err
		}
		if size := st.io.Size; c.Config.GetTty() && size.Width > 0 {
			s.emitResize(c, &nodev1.TerminalSize{Width: uint32(size.Width), Height: uint32(size.Height)})
		}
		if err := attached(); err != nil {
			return err
		}
		select {
		case <-attachment.Done:
		case <-ctx.Done():
			return ctx.Err()
		}
	} else {
		if err := attached(); err != nil {
			return err
		}
		if err := s.sandboxes.Attach(ctx, c.ID, st.io); err != nil {
			return err
		}
	}
	ended, err := s.sandboxes.WaitContainer(ctx, c.ID)
	if err != nil {
		return err
	}
	s.tellEnd(ended)
	if s.specOf(c).GetAutoRemove() {
		s.leave(c)
	}
	st.sending.Lock()
	defer st.sending.Unlock()
	return stream.Send(&nodev1.AttachResponse{Message: &nodev1.AttachResponse_Exit{Exit: int32(ended.ExitCode)}})
}
