package container

import (
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewRename is `nodectl rename`.
func NewRename(cli *command.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "rename CONTAINER NEW_NAME",
		Short: "Rename a container",
		Args:  command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			_, err = client.Rename(cmd.Context(), &nodev1.RenameRequest{
				Container: strings.TrimSpace(args[0]), Name: strings.TrimPrefix(strings.TrimSpace(args[1]), "/"),
			})
			return err
		},
	}
}
