package container

import (
	"context"
	"fmt"
	"time"

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
	cmd.Flags().StringArrayVar(&filters, "filter", nil, `Provide filter values (e.g. "until=<timestamp>")`)
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
	var until time.Time
	for _, value := range parsed["until"] {
		at, err := command.ParseTime(value)
		if err != nil {
			return 0, err
		}
		until = at.AsTime()
	}
	client, err := cli.Containers()
	if err != nil {
		return 0, err
	}
	resp, err := client.List(ctx, &nodev1.ListRequest{Sizes: true})
	if err != nil {
		return 0, err
	}
	bytes, removed := int64(0), []string(nil)
	for _, c := range resp.GetContainers() {
		stopped := c.GetState() == "created" || c.GetState() == "exited"
		if !stopped || !until.IsZero() && c.GetCreatedAt().AsTime().After(until) || !parsed.Labels(c.GetLabels()) || without(parsed, c) {
			continue
		}
		// One that was started or removed meanwhile is passed over.
		if _, err := client.Remove(ctx, &nodev1.RemoveRequest{Container: c.GetId()}); err == nil {
			bytes += c.GetSizeRw()
			removed = append(removed, c.GetId())
		}
	}
	if len(removed) > 0 {
		fmt.Fprintln(cli.Out, "Deleted Containers:")
		for _, id := range removed {
			fmt.Fprintln(cli.Out, id)
		}
		fmt.Fprintln(cli.Out)
	}
	return bytes, nil
}

// without says whether a container has a label that it must not have.
func without(filters command.Filters, c *nodev1.Container) bool {
	for _, label := range filters["label!"] {
		if (command.Filters{"label": {label}}).Labels(c.GetLabels()) {
			return true
		}
	}
	return false
}
