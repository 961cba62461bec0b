package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor/fdpass"
)

// Exec runs a further process in a running container and returns its process
// ID on the host. A nil error means that it was executed. ErrInvalidArgument
// means that its executable or working directory does not exist.
func (c *Client) Exec(ctx context.Context, e Exec) (pid int, err error) {
	process, err := json.Marshal(e.Process)
	if err != nil {
		return 0, fmt.Errorf("exec %s in container %s: encode process: %w", e.ExecID, e.ContainerID, err)
	}
	streams, err := c.send(ctx, e.Streams, e.ConsoleSocket)
	if err != nil {
		return 0, fmt.Errorf("exec %s in container %s: %w", e.ExecID, e.ContainerID, err)
	}
	err = c.call(ctx, func(s v1.SupervisorClient) error {
		r, err := s.Exec(ctx, &v1.ExecRequest{
			ContainerId: e.ContainerID,
			ExecId:      e.ExecID,
			Process:     process,
			Streams:     streams,
		})
		if err != nil {
			return err
		}
		pid = int(r.Pid)
		return nil
	})
	return pid, err
}

// WaitExec returns how an exec ended, once it ended. It may be asked for a
// minute after that; once it was told the exec is unknown.
func (c *Client) WaitExec(ctx context.Context, id, execID string) (Exit, error) {
	var exit Exit
	err := c.call(ctx, func(s v1.SupervisorClient) error {
		r, err := s.WaitExec(ctx, &v1.ExecIDRequest{ContainerId: id, ExecId: execID})
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

// KillExec kills an exec and every process it started. A nil error means that
// none of them runs any more.
func (c *Client) KillExec(ctx context.Context, id, execID string) error {
	return c.call(ctx, func(s v1.SupervisorClient) error {
		_, err := s.KillExec(ctx, &v1.ExecIDRequest{ContainerId: id, ExecId: execID})
		return err
	})
}

// send hands descriptors over and returns what names them in a request; nil
// when there are none.
func (c *Client) send(ctx context.Context, streams Streams, console *os.File) (*v1.Streams, error) {
	set := &fdpass.Set{
		Stdin:   streams.Stdin,
		Stdout:  streams.Stdout,
		Stderr:  streams.Stderr,
		Console: console,
	}
	if set.Empty() {
		return nil, nil
	}
	token, err := fdpass.Send(ctx, DescriptorSocket(c.socket), set)
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	return &v1.Streams{Token: token, Wait: streams.Wait}, nil
}
