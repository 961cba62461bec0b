package system

import (
	"context"
	"fmt"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/container"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// usage is what the agent says of its disk.
type usage struct {
	store      *nodev1.DiskUsageResponse
	images     []*nodev1.Image
	containers []*nodev1.Container
	volumes    []*nodev1.Volume
}

// NewDf is `nodectl system df`.
func NewDf(cli *command.CLI) *cobra.Command {
	var verbose bool
	var source string
	cmd := &cobra.Command{
		Use:   "df [OPTIONS]",
		Short: "Show disk usage",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := ask(cmd.Context(), cli)
			if err != nil {
				return err
			}
			if verbose {
				return u.writeVerbose(cli, source)
			}
			list := format.List{Format: source, Header: dfHeader, Default: `{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}`}
			for _, row := range u.rows() {
				list.Rows = append(list.Rows, row)
			}
			return list.Write(cli.Out)
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	cmd.Flags().StringVar(&source, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	return cmd
}

// ask asks for everything that takes room.
func ask(ctx context.Context, cli *command.CLI) (u usage, err error) {
	store, err := cli.Store()
	if err != nil {
		return u, err
	}
	if u.store, err = store.DiskUsage(ctx, &nodev1.DiskUsageRequest{}); err != nil {
		return u, err
	}
	images, err := cli.Images()
	if err != nil {
		return u, err
	}
	list, err := images.List(ctx, &nodev1.ListImagesRequest{})
	if err != nil {
		return u, err
	}
	containers, err := cli.Containers()
	if err != nil {
		return u, err
	}
	all, err := containers.List(ctx, &nodev1.ListRequest{Pods: true, Sizes: true})
	if err != nil {
		return u, err
	}
	volumes, err := cli.Volumes()
	if err != nil {
		return u, err
	}
	volumeList, err := volumes.List(ctx, &nodev1.ListVolumesRequest{Sizes: true})
	u.images, u.containers, u.volumes = list.GetImages(), all.GetContainers(), volumeList.GetVolumes()
	return u, err
}

// dfHeader are the headers of system df.
var dfHeader = format.Header{
	"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
}

// dfRow is one kind of things; its methods are the fields of templates.
type dfRow struct {
	kind              string
	total, active     int
	size, reclaimable int64
}

// Type is what it is about.
func (r dfRow) Type() string { return r.kind }

// TotalCount is how many there are.
func (r dfRow) TotalCount() string { return fmt.Sprint(r.total) }

// Active is how many are in use.
func (r dfRow) Active() string { return fmt.Sprint(r.active) }

// Size is what they take.
func (r dfRow) Size() string { return format.Total(r.size) }

// Reclaimable is what of it can be had back, with the share.
func (r dfRow) Reclaimable() string {
	if r.size <= 0 {
		return format.Total(max(r.reclaimable, 0))
	}
	return fmt.Sprintf("%s (%d%%)", format.Total(r.reclaimable), r.reclaimable*100/r.size)
}

// rows are images, containers and volumes as wholes.
func (u usage) rows() []dfRow {
	images := dfRow{kind: "Images", total: len(u.store.GetImages()), size: u.store.GetBytes(), reclaimable: u.store.GetReclaimableBytes()}
	for _, img := range u.store.GetImages() {
		if img.GetInUse() {
			images.active++
		}
	}
	containers := dfRow{kind: "Containers", total: len(u.containers)}
	for _, c := range u.containers {
		containers.size += c.GetSizeRw()
		if container.Live(c) {
			containers.active++
		} else {
			containers.reclaimable += c.GetSizeRw()
		}
	}
	volumes := dfRow{kind: "Local Volumes", total: len(u.volumes)}
	for _, v := range u.volumes {
		volumes.size += max(v.GetSize(), 0)
		if len(v.GetUsedBy()) > 0 {
			volumes.active++
		} else {
			volumes.reclaimable += max(v.GetSize(), 0)
		}
	}
	return []dfRow{images, containers, volumes}
}
