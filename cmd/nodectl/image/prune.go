package image

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

const (
	allImagesWarning = "WARNING! This will remove all images without at least one container associated to them."
	danglingWarning  = "WARNING! This will remove all dangling images."
)

// NewPrune is `nodectl image prune`.
func NewPrune(cli *command.CLI) *cobra.Command {
	var (
		o     PruneOptions
		force bool
	)
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused images",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			warning := danglingWarning
			if o.All {
				warning = allImagesWarning
			}
			if !force && !cli.Confirm(warning) {
				return nil
			}
			bytes, err := Prune(cmd.Context(), cli, o)
			if err != nil {
				return err
			}
			cli.Reclaimed(bytes)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.All, "all", "a", false, "Remove all unused images, not just dangling ones")
	f.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	command.AddFilter(f, &o.Filters, "", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// PruneOptions say which images are removed.
type PruneOptions struct {
	// All removes those with a tag too.
	All bool
	// Filters are NAME=VALUE: until, label, and label! for those without it.
	Filters []string
}

// Prune removes images that no container needs, prints which, and returns
// how many bytes that gave back.
func Prune(ctx context.Context, cli *command.CLI, o PruneOptions) (int64, error) {
	filters, err := command.ParseFilters(o.Filters, "until", "label", "label!", "dangling")
	if err != nil {
		return 0, err
	}
	req := &nodev1.PruneImagesRequest{All: o.All, Labels: filters["label"], WithoutLabels: filters["label!"]}
	dangling, given, err := filters.Bool("dangling")
	if err != nil {
		return 0, err
	}
	req.All = req.All || given && !dangling
	if req.Until, err = filters.Until(); err != nil {
		return 0, err
	}
	client, err := cli.Images()
	if err != nil {
		return 0, err
	}
	resp, err := client.Prune(ctx, req)
	if err != nil {
		return 0, err
	}
	var lines []string
	for _, img := range resp.GetRemoved() {
		for _, name := range img.GetUntagged() {
			lines = append(lines, "untagged: "+Familiar(name))
		}
		for _, id := range img.GetDeleted() {
			lines = append(lines, "deleted: "+id)
		}
	}
	cli.Deleted("Images", lines)
	return resp.GetReclaimedBytes(), nil
}
