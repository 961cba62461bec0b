package container

import (
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewPause is `nodectl pause`.
func NewPause(cli *command.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "pause CONTAINER [CONTAINER...]",
		Short: "Pause all processes within one or more containers",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			return cli.Each(args, func(name string) error {
				_, err := client.Pause(cmd.Context(), &nodev1.PauseRequest{Container: name})
				return err
			}, cli.PrintArg)
		},
	}
}
