package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor/fdpass"
)

// DescriptorSocket is the path of the socket beside a supervisor's socket that
// takes descriptors.
func DescriptorSocket(socket string) string { return socket + ".fds" }

// dialTimeout bounds a connection to a Unix socket, which takes microseconds
// unless the supervisor is stopped or drowning.
const dialTimeout = 5 * time.Second

// Client speaks to one supervisor. It is safe for concurrent use. When the
// connection is lost, calls under way fail with ErrUnavailable and the next
// call dials anew; nothing is repeated by itself, and no supervisor is started
// (call Ensure again for that).
type Client struct {
	socket string

	mu     sync.Mutex // guards the fields below
	conn   *ttrpc.Client
	closed bool
}

// Dial connects to the supervisor that listens on socket. ErrUnavailable means
// that none does.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := &Client{socket: socket}
	if _, err := c.connection(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Close closes the connection. The supervisor and its containers go on.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.conn == nil {
		return nil
	}
	conn := c.conn
	c.conn = nil
	return conn.Close()
}

// connection returns the present connection, or makes one.
func (c *Client) connection(ctx context.Context) (*ttrpc.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("supervisor client is closed: %w", errdefs.ErrUnavailable)
	}
	if c.conn != nil {
		return c.conn, nil
	}
	made := make(chan *ttrpc.Client, 1)
	conn, err := dial(ctx, c.socket, ttrpc.WithOnClose(func() { c.drop(<-made) }))
	if err != nil {
		return nil, err
	}
	made <- conn
	c.conn = conn
	return conn, nil
}

func dial(ctx context.Context, socket string, opts ...ttrpc.ClientOpts) (*ttrpc.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to supervisor %s: %w: %w", socket, err, errdefs.ErrUnavailable)
	}
	if err := fdpass.RequireRoot(nc.(*net.UnixConn)); err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to supervisor %s: %w: %w", socket, err, errdefs.ErrPermissionDenied)
	}
	return ttrpc.NewClient(nc, opts...), nil
}

// drop forgets a connection found dead, so that the next call makes another.
func (c *Client) drop(conn *ttrpc.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn {
		c.conn = nil
	}
	conn.Close()
}

// call runs one request and turns its error into errdefs' kinds.
func (c *Client) call(ctx context.Context, do func(v1.SupervisorClient) error) error {
	conn, err := c.connection(ctx)
	if err != nil {
		return err
	}
	err = do(v1.NewSupervisorClient(conn))
	if err == nil {
		return nil
	}
	if connectionLost(err) {
		c.drop(conn)
	}
	return native(err)
}

// native turns an error of the protocol into one of errdefs' kinds.
func native(err error) error {
	if connectionLost(err) {
		return fmt.Errorf("supervisor connection lost: %w", errdefs.ErrUnavailable)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err // of this side, and not of the protocol
	}
	return errgrpc.ToNative(err)
}

func connectionLost(err error) bool {
	return errors.Is(err, ttrpc.ErrClosed) || errors.Is(err, io.EOF) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

// Info describes the supervisor.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var info Info
	err := c.call(ctx, func(s v1.SupervisorClient) error {
		r, err := s.Info(ctx, &v1.InfoRequest{})
		if err != nil {
			return err
		}
		info = Info{
			Version:     r.Version,
			PID:         int(r.Pid),
			StartedAt:   timeFrom(r.StartedAt),
			RuncVersion: r.RuncVersion,
			Features:    r.Features,
		}
		return nil
	})
	return info, err
}

// Start creates container and runs it at once. A nil error means that its
// first instruction ran; on error nothing of it is left behind.
func (c *Client) Start(ctx context.Context, container Container) (pid int, err error) {
	spec, err := json.Marshal(container.Spec)
	if err != nil {
		return 0, fmt.Errorf("start container %s: encode specification: %w", container.ID, err)
	}
	streams, err := c.send(ctx, container.Attach, nil)
	if err != nil {
		return 0, fmt.Errorf("start container %s: %w", container.ID, err)
	}
	err = c.call(ctx, func(s v1.SupervisorClient) error {
		r, err := s.Start(ctx, &v1.StartRequest{
			Id:            container.ID,
			Spec:          spec,
			LogPath:       container.LogPath,
			MaxLogLine:    int32(container.MaxLogLine),
			Stdin:         container.Stdin,
			StdinOnce:     container.StdinOnce,
			SystemdCgroup: container.SystemdCgroup,
			Restore:       container.Restore,
			Attach:        streams,
		})
		if err != nil {
			return err
		}
		pid = int(r.Pid)
		return nil
	})
	return pid, err
}

// Attach connects streams to a running container. A nil error means that they
// are connected; EOF on the output descriptors tells that the container ended
// or that this client was cut off. Stdin and the outputs given are put into
// non-blocking mode by the supervisor.
func (c *Client) Attach(ctx context.Context, id string, streams Streams) error {
	sent, err := c.send(ctx, streams, nil)
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", id, err)
	}
	return c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.Attach(ctx, &v1.AttachRequest{Id: id, Streams: sent})
		return err
	})
}

// Resize sets the size, in characters, of the terminal of a container's init.
// ErrFailedPrecondition means that it has none.
func (c *Client) Resize(ctx context.Context, id string, width, height uint16) error {
	return c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.Resize(ctx, &v1.ResizeRequest{Id: id, Width: uint32(width), Height: uint32(height)})
		return err
	})
}

// Signal sends sig to a container's init, or with all to every process of its
// cgroup. ErrFailedPrecondition means that the container does not run.
func (c *Client) Signal(ctx context.Context, id string, sig syscall.Signal, all bool) error {
	return c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.Signal(ctx, &v1.SignalRequest{Id: id, Signal: int32(sig), All: all})
		return err
	})
}

// Delete kills what is left of a container and removes its cgroup and state.
// A nil error means that nothing of it is left: for a container the supervisor
// does not know, the exit is zero.
func (c *Client) Delete(ctx context.Context, id string) (Exit, error) {
	var exit Exit
	err := c.call(ctx, func(s v1.SupervisorClient) error {
		r, err := s.Delete(ctx, &v1.ContainerRequest{Id: id})
		if err != nil {
			return err
		}
		if e := exitFrom(r.Exit); e != nil {
			exit = *e
		}
		return nil
	})
	return exit, err
}

// ReopenLog opens the container's log path anew and writes there from the next
// line on. ErrFailedPrecondition means that the container does not run; no
// file is made then.
func (c *Client) ReopenLog(ctx context.Context, id string) error {
	return c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.ReopenLog(ctx, &v1.ContainerRequest{Id: id})
		return err
	})
}

// Update changes the resource limits that resources names and leaves the
// others.
func (c *Client) Update(ctx context.Context, id string, resources *specs.LinuxResources) error {
	body, err := json.Marshal(resources)
	if err != nil {
		return fmt.Errorf("update container %s: encode resources: %w", id, err)
	}
	return c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.Update(ctx, &v1.UpdateRequest{Id: id, Resources: body})
		return err
	})
}

// Pause freezes a container; pausing a paused one succeeds.
func (c *Client) Pause(ctx context.Context, id string) error {
	return c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.Pause(ctx, &v1.ContainerRequest{Id: id})
		return err
	})
}

// Resume thaws a container; resuming a running one succeeds.
func (c *Client) Resume(ctx context.Context, id string) error {
	return c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.Resume(ctx, &v1.ContainerRequest{Id: id})
		return err
	})
}

// CheckCRIU fails with ErrNotImplemented where containers cannot be
// checkpointed, and says what is missing.
func (c *Client) CheckCRIU(ctx context.Context) error {
	return c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.CheckCRIU(ctx, &v1.Empty{})
		return err
	})
}

// Checkpoint dumps the processes of a running or paused container into the
// existing, empty folder images; afterwards it is as it was. When ctx ends
// first, the dump may go on for a while: Resume and Delete wait for its end.
func (c *Client) Checkpoint(ctx context.Context, id, images string) error {
	return c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.Checkpoint(ctx, &v1.CheckpointRequest{Id: id, Images: images})
		return err
	})
}

// List tells of every container started and not deleted yet.
func (c *Client) List(ctx context.Context) ([]State, error) {
	var states []State
	err := c.call(ctx, func(s v1.SupervisorClient) error {
		r, err := s.List(ctx, &v1.ListRequest{})
		if err != nil {
			return err
		}
		for _, m := range r.States {
			states = append(states, State{
				ID:        m.Id,
				Status:    Status(m.Status),
				PID:       int(m.Pid),
				StartedAt: timeFrom(m.StartedAt),
				Exit:      exitFrom(m.Exit),
			})
		}
		return nil
	})
	return states, err
}

// StartPodInit starts the first process of a pod's PID namespace and returns
// its process ID on the host. Starting one that runs returns the running one.
func (c *Client) StartPodInit(ctx context.Context, p PodInit) (pid int, err error) {
	err = c.call(ctx, func(s v1.SupervisorClient) error {
		r, err := s.StartPodInit(ctx, &v1.StartPodInitRequest{
			Id:             p.ID,
			NamespacePaths: p.NamespacePaths,
			CgroupPath:     p.CgroupPath,
		})
		if err != nil {
			return err
		}
		pid = int(r.Pid)
		return nil
	})
	return pid, err
}

// StopPodInit kills a pod's first process and with it everything in its PID
// namespace. A nil error means that none runs.
func (c *Client) StopPodInit(ctx context.Context, id string) error {
	return c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.StopPodInit(ctx, &v1.ContainerRequest{Id: id})
		return err
	})
}

func exitFrom(m *v1.Exit) *Exit {
	if m == nil {
		return nil
	}
	return &Exit{
		Code:      int(m.Code),
		Signal:    syscall.Signal(m.Signal),
		At:        timeFrom(m.At),
		OOMKilled: m.OomKilled,
		Reason:    m.Reason,
	}
}

// timeFrom turns nanoseconds since the epoch into a time, zero into none.
func timeFrom(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
