package image

import (
	"fmt"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// NewPulls is `nodectl pulls`.
func NewPulls(cli *command.CLI) *cobra.Command {
	var template string
	cmd := &cobra.Command{
		Use:   "pulls [OPTIONS]",
		Short: "List the pulls under way, with each layer's progress",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := cli.Registries()
			if err != nil {
				return err
			}
			resp, err := client.Pulls(cmd.Context(), &nodev1.PullsRequest{})
			if err != nil {
				return err
			}
			list := format.List{Format: template, Default: pullsTable, Header: pullsHeader}
			for _, p := range resp.GetPulls() {
				for _, l := range p.GetLayers() {
					list.Rows = append(list.Rows, pullRow{p, l})
				}
				if len(p.GetLayers()) == 0 {
					list.Rows = append(list.Rows, pullRow{p, nil})
				}
			}
			return list.Write(cli.Out)
		},
	}
	cmd.Flags().StringVar(&template, "format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json', or a Go template")
	return cmd
}

const pullsTable = `{{.Image}}\t{{.Layer}}\t{{.Status}}\t{{.Progress}}\t{{.Waiters}}\t{{.Running}}`

var pullsHeader = format.Header{
	"Image": "IMAGE", "Layer": "LAYER", "Status": "STATUS", "Progress": "PROGRESS", "Waiters": "WAITERS", "Running": "RUNNING FOR",
}

// pullRow is a line of the list: one layer of one pull.
type pullRow struct {
	pull  *nodev1.PullUnderWay
	layer *nodev1.PullProgress
}

// Image is the reference in its short form.
func (r pullRow) Image() string { return Familiar(r.pull.GetRef()) }

// Layer is the layer's short digest; empty before the manifest is there.
func (r pullRow) Layer() string { return format.ID(r.layer.GetDigest(), false) }

// Status is docker's word for what happens to the layer.
func (r pullRow) Status() string {
	if r.layer == nil {
		return "Resolving"
	}
	return r.layer.GetStatus()
}

// Progress is how much of the layer has arrived.
func (r pullRow) Progress() string {
	if r.layer.GetTotal() == 0 {
		return ""
	}
	return fmt.Sprintf("%s/%s", format.Size(r.layer.GetCurrent()), format.Size(r.layer.GetTotal()))
}

// Waiters is how many callers share the pull.
func (r pullRow) Waiters() int64 { return r.pull.GetWaiters() }

// Running is for how long it has gone on.
func (r pullRow) Running() string { return format.Since(r.pull.GetStartedAt().AsTime().In(time.UTC)) }
