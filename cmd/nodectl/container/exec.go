package container

import (
	"context"
	"errors"
	"fmt"
	"io"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// NewExec is `nodectl exec`: run a command in a running container.
func NewExec(cli *command.CLI) *cobra.Command {
	var (
		start        nodev1.ExecStart
		env, envFile []string
		detachKeys   string
	)
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short: "Execute a command in a running container",
		Args:  command.MinArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if start.Env, err = environment(envFile, env); err != nil {
				return command.ValueError(cmd, err)
			}
			start.Container, start.Command = args[0], args[1:]
			keys, err := cli.DetachKeys(detachKeys)
			if err != nil {
				return err
			}
			return runExec(cmd.Context(), cli, &start, keys)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.BoolVarP(&start.Stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	flags.BoolVarP(&start.Tty, "tty", "t", false, "Allocate a pseudo-TTY")
	flags.BoolVarP(&start.Detach, "detach", "d", false, "Detached mode: run command in the background")
	flags.StringArrayVarP(&env, "env", "e", nil, "Set environment variables")
	flags.StringArrayVar(&envFile, "env-file", nil, "Read in a file of environment variables")
	flags.StringVarP(&start.User, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	flags.StringVarP(&start.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	flags.BoolVar(&start.Privileged, "privileged", false, "Give extended privileges to the command")
	flags.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

// runExec runs the command until it ends: the error has its exit code.
func runExec(ctx context.Context, cli *command.CLI, start *nodev1.ExecStart, keys []byte) error {
	client, err := cli.Containers()
	if err != nil {
		return err
	}
	if start.Detach {
		if err := detachedExec(ctx, client, start); err != nil {
			return execError(cli, err)
		}
		return nil
	}
	if err := checkTerminal(cli, start.Stdin, start.Tty); err != nil {
		return err
	}
	start.Size = terminalSize(cli, start.Tty)
	s := &session{cli: cli, out: cli.Out, err: cli.Err, tty: start.Tty, stdin: start.Stdin, keys: keys}
	code, err := s.run(ctx, func(ctx context.Context) (link, error) { return openExec(ctx, client, start) })
	switch {
	case errors.Is(err, terminal.ErrDetached):
		fmt.Fprintln(cli.Err, err)
		return &command.Exit{Code: 1}
	case err != nil:
		return execError(cli, err)
	case code != 0:
		return &command.Exit{Code: code}
	}
	return nil
}

// execError gives a command that could not be invoked docker's exit code. An
// error about the container ends nodectl with 1.
func execError(cli *command.CLI, err error) error {
	switch command.Code(err) {
	case codes.NotFound, codes.FailedPrecondition, codes.Unavailable:
		return err
	case codes.InvalidArgument:
		// What is asked for cannot be: a user that there is not.
		return &command.Exit{Code: max(startCode(cli.Text(err)), command.ExitNotInvocable), Err: err}
	}
	if code := startCode(cli.Text(err)); code != command.ExitEngine {
		return &command.Exit{Code: code, Err: err}
	}
	return err
}

// detachedExec returns once the command runs.
func detachedExec(ctx context.Context, client nodev1.ContainersClient, start *nodev1.ExecStart) error {
	l, err := openExec(ctx, client, start)
	if err != nil {
		return err
	}
	for {
		if _, err := l.receive(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
