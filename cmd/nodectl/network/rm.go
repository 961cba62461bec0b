package network

import (
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// NewRemove is `nodectl network rm`.
func NewRemove(cli *command.CLI) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm NETWORK [NETWORK...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more networks",
		Args:    command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Networks()
			if err != nil {
				return err
			}
			return cli.Each(args, func(name string) error {
				_, err := client.Remove(cmd.Context(), &nodev1.RemoveNetworkRequest{Network: name})
				if force && command.Code(err) == codes.NotFound {
					return nil // nor is it named, as docker's
				}
				if err == nil {
					cli.PrintArg(name)
				}
				return err
			}, nil)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}
