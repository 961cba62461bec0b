package volume

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

const (
	warnAnonymous = "WARNING! This will remove anonymous local volumes not used by at least one container."
	warnAll       = "WARNING! This will remove all local volumes not used by at least one container."
)

// NewPrune is `nodectl volume prune`.
func NewPrune(cli *command.CLI) *cobra.Command {
	var (
		all, force bool
		filters    []string
	)
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused local volumes",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := pruneRequest(all, filters)
			if err != nil {
				return err
			}
			warning := warnAnonymous
			if req.GetAll() {
				warning = warnAll
			}
			if !force && !cli.Confirm(warning) {
				return nil
			}
			bytes, err := prune(cmd.Context(), cli, req)
			if err != nil {
				return err
			}
			cli.Reclaimed(bytes)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	command.AddFilter(cmd.Flags(), &filters, "", `Provide filter values (e.g. "label=<label>")`)
	return cmd
}

// Prune removes anonymous volumes that no container uses, prints which, and
// returns how many bytes that gave back. Filters are label, label! for those
// without it, and all=true, which means those with a name too.
func Prune(ctx context.Context, cli *command.CLI, filters []string) (int64, error) {
	req, err := pruneRequest(false, filters)
	if err != nil {
		return 0, err
	}
	return prune(ctx, cli, req)
}

// pruneRequest reads the filters.
func pruneRequest(all bool, filters []string) (*nodev1.PruneVolumesRequest, error) {
	parsed, err := command.ParseFilters(filters, "label", "label!", "all")
	if err != nil {
		return nil, err
	}
	more, _, err := parsed.Bool("all")
	return &nodev1.PruneVolumesRequest{All: all || more, Labels: parsed["label"], WithoutLabels: parsed["label!"]}, err
}

func prune(ctx context.Context, cli *command.CLI, req *nodev1.PruneVolumesRequest) (int64, error) {
	client, err := cli.Volumes()
	if err != nil {
		return 0, err
	}
	resp, err := client.Prune(ctx, req)
	if err != nil {
		return 0, err
	}
	cli.Deleted("Volumes", resp.GetNames())
	return resp.GetReclaimedBytes(), nil
}
