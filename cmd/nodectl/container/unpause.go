package container

import (
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewUnpause is `nodectl unpause`.
func NewUnpause(cli *command.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "unpause CONTAINER [CONTAINER...]",
		Short: "Unpause all processes within one or more containers",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			return cli.Each(args, func(name string) error {
				_, err := client.Unpause(cmd.Context(), &nodev1.UnpauseRequest{Container: name})
				return err
			}, cli.PrintArg)
		},
	}
}
