package container

import (
	"context"
	"fmt"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

const pruneWarning = `WARNING! This will remove all stopped containers.
Are you sure you want to continue?`

// NewPrune is `nodectl container prune`.
func NewPrune(cli *command.CLI) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove all stopped containers",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force && !cli.Confirm(pruneWarning) {
				return nil
			}
			bytes, err := Prune(cmd.Context(), cli, filters)
			if err != nil {
				return err
			}
			fmt.Fprintln(cli.Out, "Total reclaimed space: "+format.Size(bytes))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	command.AddFilter(cmd.Flags(), &filters, "", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// Prune removes nodectl's containers that do not run, prints which, and
// returns how many bytes of their own layers that gave back. Filters are until,
// label, and label! for those without it; kubelet's containers are left alone.
func Prune(ctx context.Context, cli *command.CLI, filters []string) (int64, error) {
	parsed, err := command.ParseFilters(filters, "until", "label", "label!")
	if err != nil {
		return 0, err
	}
	req := &nodev1.PruneContainersRequest{Labels: parsed["label"], WithoutLabels: parsed["label!"]}
	for _, value := range parsed["until"] {
		if req.Until, err = command.ParseTime(value); err != nil {
			return 0, err
		}
	}
	client, err := cli.Containers()
	if err != nil {
		return 0, err
	}
	resp, err := client.Prune(ctx, req)
	if err != nil {
		return 0, err
	}
	if len(resp.GetIds()) > 0 {
		fmt.Fprintln(cli.Out, "Deleted Containers:")
		for _, id := range resp.GetIds() {
			fmt.Fprintln(cli.Out, id)
		}
		fmt.Fprintln(cli.Out)
	}
	return resp.GetReclaimedBytes(), nil
}
