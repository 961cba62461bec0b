package container

import (
	"fmt"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// changeLetters are docker's.
var changeLetters = map[nodev1.Change_Kind]string{
	nodev1.Change_MODIFIED: "C", nodev1.Change_ADDED: "A", nodev1.Change_DELETED: "D",
}

// NewDiff is `nodectl diff`.
func NewDiff(cli *command.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "diff CONTAINER",
		Short: "Inspect changes to files or directories on a container's filesystem",
		Args:  command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			resp, err := client.Changes(cmd.Context(), &nodev1.ChangesRequest{Container: args[0]})
			if err != nil {
				return err
			}
			for _, c := range resp.GetChanges() {
				fmt.Fprintln(cli.Out, changeLetters[c.GetKind()]+" "+c.GetPath())
			}
			return nil
		},
	}
}
