package volume

import (
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewRemove is `nodectl volume rm`.
func NewRemove(cli *command.CLI) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] VOLUME [VOLUME...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more volumes",
		Args:    command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Volumes()
			if err != nil {
				return err
			}
			return cli.Each(args, func(name string) error {
				_, err := client.Remove(cmd.Context(), &nodev1.RemoveVolumeRequest{Name: name, Force: force})
				return err
			}, cli.PrintArg)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	return cmd
}
