package container

import (
	"context"
	"errors"
	"fmt"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewStart is `nodectl start`.
func NewStart(cli *command.CLI) *cobra.Command {
	var (
		attach, interactive bool
		detachKeys          string
	)
	cmd := &cobra.Command{
		Use:   "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Start one or more stopped containers",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			if !attach && !interactive {
				return startAll(cmd.Context(), cli, client, args)
			}
			if len(args) > 1 {
				return errors.New("you cannot start and attach multiple containers at once")
			}
			return attachTo(cmd.Context(), cli, attachOptions{
				name: args[0], stdin: interactive, start: true, sigProxy: true, detachKeys: detachKeys,
			})
		},
	}
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "Attach container's STDIN")
	cmd.Flags().StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

// startAll starts containers without attaching. Those that could not be are
// told of once more at the end, as docker does.
func startAll(ctx context.Context, cli *command.CLI, client nodev1.ContainersClient, names []string) error {
	var failed []string
	err := cli.Each(names, func(name string) error {
		_, err := client.Start(ctx, &nodev1.StartRequest{Container: name})
		if err != nil {
			failed = append(failed, name)
		}
		return err
	}, cli.PrintArg)
	if err != nil {
		return fmt.Errorf("failed to start containers: %s", strings.Join(failed, ", "))
	}
	return nil
}
