package container

import (
	"fmt"
	"strings"
	"text/tabwriter"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewTop is `nodectl top`.
func NewTop(cli *command.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top CONTAINER [ps OPTIONS]",
		Short: "Display the running processes of a container",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			resp, err := client.Top(cmd.Context(), &nodev1.TopRequest{Container: args[0], Args: args[1:]})
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cli.Out, 20, 1, 3, ' ', 0)
			fmt.Fprintln(w, strings.Join(resp.GetTitles(), "\t"))
			for _, p := range resp.GetProcesses() {
				fmt.Fprintln(w, strings.Join(p.GetFields(), "\t"))
			}
			return w.Flush()
		},
	}
	// What follows the container is for ps.
	cmd.Flags().SetInterspersed(false)
	return cmd
}
