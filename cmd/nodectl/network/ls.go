package network

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// scope is that of all networks: one node's.
const scope = "local"

// listFlags are the flags of ls.
type listFlags struct {
	quiet, noTrunc bool
	format         string
	filters        []string
}

// NewList is `nodectl network ls`.
func NewList(cli *command.CLI) *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List networks",
		Args:    command.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cli) },
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Only display network IDs")
	flags.BoolVar(&f.noTrunc, "no-trunc", false, "Do not truncate the output")
	flags.StringVar(&f.format, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	command.AddFilter(flags, &f.filters, "f", `Provide filter values (e.g. "driver=bridge")`)
	return cmd
}

func (f *listFlags) run(ctx context.Context, cli *command.CLI) error {
	filters, err := command.ParseFilters(f.filters, "dangling", "driver", "id", "label", "name", "scope", "type")
	if err != nil {
		return err
	}
	match, err := matcher(filters)
	if err != nil {
		return err
	}
	client, err := cli.Networks()
	if err != nil {
		return err
	}
	resp, err := client.List(ctx, &nodev1.ListNetworksRequest{})
	if err != nil {
		return err
	}
	if f.format == "" {
		f.format = cli.DockerConfig().NetworksFormat
	}
	list := format.List{Format: f.format, Header: header, Default: `{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}`}
	if f.quiet {
		list.Format = "{{.ID}}"
	}
	for _, n := range resp.GetNetworks() {
		if match(n) {
			list.Rows = append(list.Rows, row{n, f.noTrunc})
		}
	}
	return list.Write(cli.Out)
}

// matcher checks the values of filters, and says which networks match.
func matcher(filters command.Filters) (func(*nodev1.NetworkInfo) bool, error) {
	dangling, given, err := filters.Bool("dangling")
	if err != nil {
		return nil, err
	}
	for _, value := range filters["type"] {
		if value != "custom" && value != "builtin" {
			return nil, fmt.Errorf("invalid filter: 'type'='%s'", value)
		}
	}
	return func(n *nodev1.NetworkInfo) bool {
		return filters.Labels(n.GetLabels()) &&
			filters.Any("driver", func(v string) bool { return n.GetDriver() == v }) &&
			filters.Any("id", func(v string) bool { return strings.Contains(n.GetId(), v) }) &&
			filters.Any("name", func(v string) bool { return strings.Contains(n.GetName(), v) }) &&
			filters.Any("scope", func(v string) bool { return v == scope }) &&
			filters.Any("type", func(v string) bool { return (v == "builtin") == n.GetPredefined() }) &&
			(!given || dangling == (!n.GetPredefined() && !n.GetInUse()))
	}, nil
}

// header are the headers of ls.
var header = format.Header{
	"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
	"Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
}

// row is a network as ls shows it; its methods are the fields of templates.
type row struct {
	n     *nodev1.NetworkInfo
	whole bool
}

// ID is the network's ID, shortened unless asked for whole.
func (r row) ID() string { return format.ID(r.n.GetId(), r.whole) }

// Name is the network's name.
func (r row) Name() string { return r.n.GetName() }

// Driver is the network's driver.
func (r row) Driver() string { return r.n.GetDriver() }

// Scope is one node.
func (r row) Scope() string { return scope }

// IPv4 says whether it has addresses of IPv4.
func (r row) IPv4() string { return strconv.FormatBool(r.n.GetIpv4()) }

// IPv6 says whether it has addresses of IPv6.
func (r row) IPv6() string { return strconv.FormatBool(r.n.GetIpv6()) }

// Internal says whether it leads nowhere.
func (r row) Internal() string { return strconv.FormatBool(r.n.GetInternal()) }

// Labels are all labels.
func (r row) Labels() string { return format.Pairs(r.n.GetLabels(), ",") }

// Label is one label's value.
func (r row) Label(name string) string { return r.n.GetLabels()[name] }

// CreatedAt is when the network was made.
func (r row) CreatedAt() string {
	return r.n.GetCreatedAt().AsTime().Local().Format("2006-01-02 15:04:05.999999999 -0700 MST")
}
