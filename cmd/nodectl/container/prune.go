package container

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewPrune is `nodectl container prune`.
func NewPrune(cli *command.CLI) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove all stopped containers",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force && !cli.Confirm("WARNING! This will remove all stopped containers.") {
				return nil
			}
			bytes, err := Prune(cmd.Context(), cli, filters)
			if err != nil {
				return err
			}
			cli.Reclaimed(bytes)
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
	if req.Until, err = parsed.Until(); err != nil {
		return 0, err
	}
	client, err := cli.Containers()
	if err != nil {
		return 0, err
	}
	resp, err := client.Prune(ctx, req)
	if err != nil {
		return 0, err
	}
	cli.Deleted("Containers", resp.GetIds())
	return resp.GetReclaimedBytes(), nil
}
