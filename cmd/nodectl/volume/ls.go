package volume

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// listFlags are the flags of ls.
type listFlags struct {
	quiet   bool
	format  string
	filters []string
}

// NewList is `nodectl volume ls`.
func NewList(cli *command.CLI) *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List volumes",
		Args:    command.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return flags.run(cmd.Context(), cli) },
	}
	cmd.Flags().BoolVarP(&flags.quiet, "quiet", "q", false, "Only display volume names")
	cmd.Flags().StringVar(&flags.format, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	command.AddFilter(cmd.Flags(), &flags.filters, "f", `Provide filter values (e.g. "dangling=true")`)
	return cmd
}

func (f *listFlags) run(ctx context.Context, cli *command.CLI) error {
	filters, err := command.ParseFilters(f.filters, "dangling", "driver", "label", "name")
	if err != nil {
		return err
	}
	client, err := cli.Volumes()
	if err != nil {
		return err
	}
	if f.format == "" && !f.quiet {
		f.format = cli.DockerConfig().VolumesFormat
	}
	resp, err := client.List(ctx, &nodev1.ListVolumesRequest{Sizes: strings.Contains(f.format, ".Size")})
	if err != nil {
		return err
	}
	list := format.List{Format: f.format, Header: header, Default: `{{.Driver}}\t{{.Name}}`}
	if f.quiet {
		list.Format = "{{.Name}}"
	}
	match, err := matcher(filters)
	if err != nil {
		return err
	}
	for _, v := range resp.GetVolumes() {
		if match(v) {
			list.Rows = append(list.Rows, row{v})
		}
	}
	return list.Write(cli.Out)
}

// matcher checks the values of filters, and says which volumes match.
func matcher(filters command.Filters) (func(*nodev1.Volume) bool, error) {
	dangling, given, err := filters.Bool("dangling")
	if err != nil {
		return nil, err
	}
	var names []*regexp.Regexp
	for _, value := range filters["name"] {
		name, err := regexp.Compile(value)
		if err != nil {
			return nil, fmt.Errorf("invalid filter 'name=%s'", value)
		}
		names = append(names, name)
	}
	return func(v *nodev1.Volume) bool {
		return (!given || dangling == (len(v.GetUsedBy()) == 0)) && filters.Labels(v.GetLabels()) &&
			filters.Any("driver", func(want string) bool { return v.GetDriver() == want }) &&
			(len(names) == 0 || slices.ContainsFunc(names, func(name *regexp.Regexp) bool { return name.MatchString(v.GetName()) }))
	}, nil
}

var header = format.Header{
	"Driver": "DRIVER", "Name": "VOLUME NAME", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS", "Links": "LINKS", "Size": "SIZE",
	"Availability": "AVAILABILITY", "Group": "GROUP", "Status": "STATUS",
}

// row is a volume as ls shows it; its methods are the fields of templates.
type row struct {
	v *nodev1.Volume
}

// Name is the volume's name.
func (r row) Name() string { return r.v.GetName() }

// Driver is always the same.
func (r row) Driver() string { return r.v.GetDriver() }

// Scope is always the node.
func (r row) Scope() string { return "local" }

// Mountpoint is where the files are.
func (r row) Mountpoint() string { return r.v.GetMountpoint() }

// Labels are all labels.
func (r row) Labels() string { return format.Pairs(r.v.GetLabels(), ",") }

// Label is the value of one label.
func (r row) Label(name string) string { return r.v.GetLabels()[name] }

// Links is how many containers use it.
func (r row) Links() string { return strconv.Itoa(len(r.v.GetUsedBy())) }

// Size is what it takes on disk.
func (r row) Size() string {
	if r.v.GetSize() < 0 {
		return "N/A"
	}
	return format.Total(r.v.GetSize())
}

// Availability, Group and Status are of clusters, which this is none of.
func (r row) Availability() string { return "N/A" }

// Group is of clusters.
func (r row) Group() string { return "N/A" }

// Status is of clusters.
func (r row) Status() string { return "N/A" }
