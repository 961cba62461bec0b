package volume

import (
	"fmt"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
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
			if !force && !cli.Confirm(warning+"\nAre you sure you want to continue?") {
				return nil
			}
			client, err := cli.Volumes()
			if err != nil {
				return err
			}
			resp, err := client.Prune(cmd.Context(), req)
			if err != nil {
				return err
			}
			if len(resp.GetNames()) > 0 {
				fmt.Fprintf(cli.Out, "Deleted Volumes:\n%s\n\n", strings.Join(resp.GetNames(), "\n"))
			}
			fmt.Fprintln(cli.Out, "Total reclaimed space: "+format.Size(resp.GetReclaimedBytes()))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	command.AddFilter(cmd.Flags(), &filters, "", `Provide filter values (e.g. "label=<label>")`)
	return cmd
}

// pruneRequest reads the filters.
func pruneRequest(all bool, texts []string) (*nodev1.PruneVolumesRequest, error) {
	req := &nodev1.PruneVolumesRequest{All: all}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if strings.HasSuffix(name, "!") {
			name = "label!"
		}
		switch {
		case ok && name == "label":
			req.Labels = append(req.Labels, value)
		case ok && name == "label!":
			req.WithoutLabels = append(req.WithoutLabels, value)
		case ok && name == "all":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return nil, fmt.Errorf("invalid filter 'all=%s'", value)
			}
			req.All = req.All || on
		default:
			return nil, fmt.Errorf("invalid filter '%s'", name)
		}
	}
	return req, nil
}
