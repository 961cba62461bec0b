package container

import (
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// NewRemove is `nodectl rm`.
func NewRemove(cli *command.CLI) *cobra.Command {
	var force, volumes, link bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] CONTAINER [CONTAINER...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more containers",
		Args:    command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			return cli.Each(args, func(name string) error {
				_, err := client.Remove(cmd.Context(), &nodev1.RemoveRequest{Container: name, Force: force, Volumes: volumes, Link: link})
				if force && command.Code(err) == codes.NotFound {
					// As docker: it is said, and no failure.
					cli.Report(err)
					return nil
				}
				if err == nil {
					cli.PrintArg(name)
				}
				return err
			}, nil)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	cmd.Flags().BoolVarP(&link, "link", "l", false, "Remove the specified link")
	return cmd
}
