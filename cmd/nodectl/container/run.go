package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
	"github.com/spf13/cobra"
)

// NewRun is `nodectl run`: create a container and start it.
func NewRun(cli *command.CLI) *cobra.Command {
	var (
		flags            createFlags
		detach, sigProxy bool
		detachKeys       string
	)
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create and run a new container from an image",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := runner{cli: cli, flags: &flags, detach: detach, sigProxy: sigProxy, detachKeys: detachKeys}
			return command.EngineError(cmd, r.run(cmd.Context(), args[0], args[1:]))
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "Run container in background and print container ID")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	cmd.Flags().StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

// runner is one run.
type runner struct {
	cli              *command.CLI
	flags            *createFlags
	detach, sigProxy bool
	detachKeys       string
}

func (r *runner) run(ctx context.Context, image string, args []string) error {
	keys, err := r.cli.DetachKeys(r.detachKeys)
	if err != nil {
		return err
	}
	if r.detach && len(r.flags.attach) > 0 {
		return errors.New("conflicting options: cannot specify both --attach and --detach")
	}
	if !r.detach {
		if err := checkTerminal(r.cli, r.flags.interactive, r.flags.tty); err != nil {
			return err
		}
	}
	client, err := r.cli.Containers()
	if err != nil {
		return err
	}
	id, err := createContainer(ctx, r.cli, r.flags, createArgs{image: image, command: args, detached: r.detach})
	if err != nil {
		return err
	}
	if r.detach {
		// The ID is told of one that cannot be started too: it is there.
		_, err := client.Start(ctx, &nodev1.StartRequest{Container: id})
		fmt.Fprintln(r.cli.Out, id)
		if err != nil {
			return r.startError(err)
		}
		return nil
	}
	return r.attached(ctx, client, id, keys)
}

// startError gives a start that failed in a run docker's exit code: 127 where
// the command is not there, 126 where it cannot be invoked, 125 for all else.
func (r *runner) startError(err error) error {
	text := r.cli.Text(err)
	// A person's mistake is said without the way it took to be found; the
	// agent's log has that.
	if at := strings.Index(text, `exec: "`); at >= 0 {
		err = errors.New("failed to start container: " + text[at:])
	}
	return &command.Exit{Code: startCode(text), Err: command.Hint(r.flags.cmd, err)}
}

// attached starts the container with the person's streams joined to it.
func (r *runner) attached(ctx context.Context, client nodev1.ContainersClient, id string, keys []byte) error {
	return foreground(ctx, r.cli, client, foregroundOptions{
		id: id, tty: r.flags.tty, stdin: r.flags.interactive, start: true, startError: r.startError,
		sigProxy: r.sigProxy, keys: keys, streams: r.flags.attach,
	})
}

// checkTerminal refuses input to a terminal that does not come from one.
func checkTerminal(cli *command.CLI, stdin, tty bool) error {
	if stdin && tty && !terminal.Is(cli.In) {
		return &command.Exit{Code: 1, Err: errors.New("the input device is not a TTY")}
	}
	return nil
}

// foregroundOptions say how a container is attached to.
type foregroundOptions struct {
	id                string
	tty, stdin, start bool
	// startError, when not nil, words why it could not be started.
	startError func(error) error
	sigProxy   bool
	keys       []byte
	// streams are those attached to, of stdin, stdout and stderr; none means
	// all.
	streams []string
}

// has says whether a stream is attached to.
func (o foregroundOptions) has(stream string) bool {
	return len(o.streams) == 0 || slices.ContainsFunc(o.streams, func(s string) bool { return strings.EqualFold(s, stream) })
}

// foreground attaches to a container, and starts it where asked, until it
// ends: the error has its exit code. Detaching is no error where it was
// started here.
func foreground(ctx context.Context, cli *command.CLI, client nodev1.ContainersClient, o foregroundOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.sigProxy {
		defer proxySignals(ctx, client, o.id, func() { cancel(errForced) })()
	}
	begun := false
	out, stderr := cli.Out, cli.Err
	if !o.has("stdout") {
		out = io.Discard
	}
	if !o.has("stderr") {
		stderr = io.Discard
	}
	o.stdin = o.stdin && o.has("stdin")
	s := &session{
		cli: cli, out: out, err: stderr, tty: o.tty, stdin: o.stdin, proxied: o.sigProxy, keys: o.keys, attached: func(string) { begun = true },
	}
	code, err := s.run(ctx, func(ctx context.Context) (link, error) {
		return openAttach(ctx, client, &nodev1.AttachStart{
			Container: o.id, Start: o.start, Stdin: o.stdin, Output: true, Size: terminalSize(cli, o.tty),
		})
	})
	switch {
	case err != nil && context.Cause(ctx) == errForced:
		return &command.Exit{Code: 1, Err: errForced}
	case errors.Is(err, terminal.ErrDetached):
		fmt.Fprintln(cli.Err, err)
		if o.start {
			return nil
		}
		return &command.Exit{Code: 1}
	case err != nil && o.startError != nil && !begun:
		return o.startError(err)
	case err != nil && o.startError != nil:
		return &command.Exit{Code: command.ExitEngine, Err: err}
	case err != nil:
		return err
	case code != 0:
		return &command.Exit{Code: code}
	}
	return nil
}
