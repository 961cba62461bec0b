package container

import (
	"fmt"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewWait is `nodectl wait`.
func NewWait(cli *command.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "wait CONTAINER [CONTAINER...]",
		Short: "Block until one or more containers stop, then print their exit codes",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			return cli.Each(args, func(name string) error {
				resp, err := client.Wait(cmd.Context(), &nodev1.WaitRequest{Container: name})
				if err == nil {
					fmt.Fprintln(cli.Out, resp.GetExitCode())
				}
				return err
			}, nil)
		},
	}
}
