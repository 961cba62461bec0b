package system

import (
	"context"
	"errors"
	"strings"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/container"
	"github.com/nodeagent/nodeagent/cmd/nodectl/image"
	"github.com/nodeagent/nodeagent/cmd/nodectl/network"
	"github.com/nodeagent/nodeagent/cmd/nodectl/volume"
	"github.com/spf13/cobra"
)

// pruneFlags are the flags of system prune.
type pruneFlags struct {
	all, volumes, force bool
	filters             []string
}

// NewPrune is `nodectl system prune`.
func NewPrune(cli *command.CLI) *cobra.Command {
	var flags pruneFlags
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused data",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filters, err := command.ParseFilters(flags.filters, "until", "label", "label!")
			if err != nil {
				return err
			}
			if flags.volumes && len(filters["until"]) > 0 {
				return errors.New(`The "until" filter is not supported with "--volumes"`)
			}
			if !flags.force && !cli.Confirm(flags.warning()) {
				return nil
			}
			bytes, err := flags.prune(cmd.Context(), cli)
			if err != nil {
				return err
			}
			cli.Reclaimed(bytes)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&flags.all, "all", "a", false, "Remove all unused images not just dangling ones")
	f.BoolVar(&flags.volumes, "volumes", false, "Prune anonymous volumes")
	f.BoolVarP(&flags.force, "force", "f", false, "Do not prompt for confirmation")
	command.AddFilter(f, &flags.filters, "", `Provide filter values (e.g. "label=<key>=<value>")`)
	return cmd
}

// warning says what is about to go.
func (f pruneFlags) warning() string {
	items := []string{"all stopped containers", "all networks not used by at least one container"}
	if f.volumes {
		items = append(items, "all anonymous volumes not used by at least one container")
	}
	if f.all {
		items = append(items, "all images without at least one container associated to them")
	} else {
		items = append(items, "all dangling images")
	}
	text := "WARNING! This will remove:\n  - " + strings.Join(items, "\n  - ") + "\n\n"
	if len(f.filters) > 0 {
		text += "  Items to be pruned will be filtered with:\n  - " + strings.Join(f.filters, "\n  - ") + "\n\n"
	}
	return strings.TrimSuffix(text, "\n")
}

// prune removes what nothing needs, the users of things before the things.
func (f pruneFlags) prune(ctx context.Context, cli *command.CLI) (int64, error) {
	total, err := container.Prune(ctx, cli, f.filters)
	if err != nil {
		return 0, err
	}
	if err := network.Prune(ctx, cli, f.filters); err != nil {
		return 0, err
	}
	if f.volumes {
		bytes, err := volume.Prune(ctx, cli, f.filters)
		if err != nil {
			return 0, err
		}
		total += bytes
	}
	bytes, err := image.Prune(ctx, cli, image.PruneOptions{All: f.all, Filters: f.filters})
	return total + bytes, err
}
