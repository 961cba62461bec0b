package network

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewPrune is `nodectl network prune`.
func NewPrune(cli *command.CLI) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove all unused networks",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force && !cli.Confirm("WARNING! This will remove all custom networks not used by at least one container.") {
				return nil
			}
			return Prune(cmd.Context(), cli, filters)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	command.AddFilter(cmd.Flags(), &filters, "", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// Prune removes people's networks that no container is on, and prints which.
// Filters are until, label, and label! for those without it.
func Prune(ctx context.Context, cli *command.CLI, filters []string) error {
	parsed, err := command.ParseFilters(filters, "until", "label", "label!")
	if err != nil {
		return err
	}
	req := &nodev1.PruneNetworksRequest{Labels: parsed["label"], LabelsNot: parsed["label!"]}
	if req.Until, err = parsed.Until(); err != nil {
		return err
	}
	client, err := cli.Networks()
	if err != nil {
		return err
	}
	resp, err := client.Prune(ctx, req)
	if err != nil {
		return err
	}
	cli.Deleted("Networks", resp.GetRemoved())
	return nil
}
