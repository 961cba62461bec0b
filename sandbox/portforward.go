package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/sandbox/namespace"
)

// dialTime bounds a connection to a pod's own port.
const dialTime = 10 * time.Second

// PortForward copies between stream and a port on the pod's localhost, on
// IPv4 or else IPv6. One side's end of sending is passed on to the other. It
// closes stream, and returns when both directions ended or ctx is done.
func (m *Manager) PortForward(ctx context.Context, podID string, port uint16, stream io.ReadWriteCloser) error {
	defer stream.Close()
	p, err := m.findPod(podID)
	if err != nil {
		return fmt.Errorf("forward port: %w", err)
	}
	s := p.get()
	if s.State != PodReady {
		return fmt.Errorf("forward port %d of pod %s: it is %s: %w", port, s.ID, s.State, errdefs.ErrFailedPrecondition)
	}
	conn, err := m.dialPod(ctx, s, port)
	if err == nil {
		defer conn.Close()
		err = splice(ctx, conn.(*net.TCPConn), stream)
	}
	if err != nil {
		return fmt.Errorf("forward port %d of pod %s: %w", port, s.ID, err)
	}
	return nil
}

// dialPod connects to the pod's localhost. The socket is made inside the
// network namespace and belongs to it for good.
func (m *Manager) dialPod(ctx context.Context, s *podState, port uint16) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	dial := func() error {
		var errs []error
		for _, host := range []string{"127.0.0.1", "::1"} {
			var d net.Dialer
			if conn, err = d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port)))); err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	netns := s.NetNS
	if target := networkTarget(s.Config); target != "" {
		netns = m.nsPath(target, namespace.Net)
	}
	if netns == "" {
		err = dial()
	} else {
		err = m.ns.Run(ctx, netns, namespace.Net, dial)
	}
	return conn, err
}

// halfCloser can say that it will send no more and still receive.
type halfCloser interface{ CloseWrite() error }

// splice copies both ways until both have ended or ctx is done.
func splice(ctx context.Context, conn *net.TCPConn, stream io.ReadWriteCloser) error {
	stop := context.AfterFunc(ctx, func() {
		conn.Close()
		stream.Close()
	})
	defer stop()
	toStream := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, conn)
		if half, ok := stream.(halfCloser); ok {
			_ = half.CloseWrite()
		} else {
			_ = stream.Close()
		}
		toStream <- err
	}()
	_, err := io.Copy(conn, stream)
	_ = conn.CloseWrite()
	if err := errors.Join(<-toStream, err); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return ctx.Err()
}
