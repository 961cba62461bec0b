// Package system holds the commands of nodectl that are about the agent and
// its node, or about things of more than one kind.
package system

import (
	"context"
	"fmt"
	"strings"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/container"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/nodeagent/nodeagent/cmd/nodectl/image"
	"github.com/nodeagent/nodeagent/cmd/nodectl/network"
	"github.com/nodeagent/nodeagent/cmd/nodectl/volume"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// NewInspect is `nodectl inspect`; with a kind, such as "container", it is
// `nodectl container inspect`.
func NewInspect(cli *command.CLI, kind string) *cobra.Command {
	var (
		source, platform string
		sizes            bool
	)
	wanted := kind
	use, short := "NAME|ID", "Return low-level information on objects"
	if kind != "" {
		use, short = strings.ToUpper(kind), "Display detailed information on one or more "+kind+"s"
	}
	cmd := &cobra.Command{
		Use:   fmt.Sprintf("inspect [OPTIONS] %[1]s [%[1]s...]", use),
		Short: short,
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch wanted {
			case "", "container", "image", "network", "volume":
			default:
				return fmt.Errorf("unknown type: %q: must be one of \"container\", \"image\", \"network\", \"volume\"", wanted)
			}
			return inspect(cmd.Context(), cli, inspectOptions{kind: wanted, format: source, platform: platform, names: args, sizes: sizes})
		},
	}
	cmd.Flags().StringVarP(&source, "format", "f", "", `Format output: "json" or a Go template`)
	if kind == "" || kind == "container" {
		cmd.Flags().BoolVarP(&sizes, "size", "s", false, "Display total file sizes if the type is container")
	}
	if kind == "image" {
		cmd.Flags().StringVar(&platform, "platform", "", `Inspect a specific platform of the multi-platform image. Formatted as "os[/arch[/variant]]"`)
	}
	if kind == "network" {
		cmd.Flags().BoolP("verbose", "v", false, "Verbose output for diagnostics")
	}
	if kind == "" {
		cmd.Flags().StringVar(&wanted, "type", "", `Only inspect objects of the given type ("container", "image", "network", "volume")`)
	}
	return cmd
}

// inspectOptions say what is inspected.
type inspectOptions struct {
	kind, format, platform string
	names                  []string
	sizes                  bool
}

// inspect prints what is found, then says what is not.
func inspect(ctx context.Context, cli *command.CLI, o inspectOptions) error {
	found := []any{}
	var failures []error
	for _, name := range o.names {
		value, err := inspectOne(ctx, cli, o, name)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		found = append(found, value)
	}
	if err := printInspected(cli, o.format, found); err != nil {
		return err
	}
	for _, err := range failures {
		cli.Report(err)
	}
	if len(failures) > 0 {
		return &command.Exit{Code: 1}
	}
	return nil
}

// printInspected prints an array, or each by a template.
func printInspected(cli *command.CLI, source string, found []any) error {
	if source == "" || source == "json" {
		return format.Value(cli.Out, source, found)
	}
	if len(found) == 0 {
		_, err := format.Parse(source)
		return err
	}
	for _, value := range found {
		if err := format.Value(cli.Out, source, value); err != nil {
			return err
		}
	}
	return nil
}

// inspectors look for objects of one kind each, in this order.
var inspectors = []struct {
	kind    string
	inspect func(context.Context, *command.CLI, inspectOptions, string) (any, error)
}{
	{"container", func(ctx context.Context, cli *command.CLI, o inspectOptions, name string) (any, error) {
		return container.Inspect(ctx, cli, name, o.sizes)
	}},
	{"image", func(ctx context.Context, cli *command.CLI, o inspectOptions, name string) (any, error) {
		return image.Inspect(ctx, cli, name, o.platform)
	}},
	{"network", func(ctx context.Context, cli *command.CLI, _ inspectOptions, name string) (any, error) {
		return network.Inspect(ctx, cli, name)
	}},
	{"volume", func(ctx context.Context, cli *command.CLI, _ inspectOptions, name string) (any, error) {
		return volume.Inspect(ctx, cli, name)
	}},
}

// inspectOne looks for an object of a kind, or of any.
func inspectOne(ctx context.Context, cli *command.CLI, o inspectOptions, name string) (any, error) {
	kind := o.kind
	for _, i := range inspectors {
		if kind != "" && kind != i.kind {
			continue
		}
		value, err := i.inspect(ctx, cli, o, name)
		if err == nil || kind != "" || command.Code(err) != codes.NotFound {
			return value, err
		}
	}
	return nil, fmt.Errorf("No such object: %s", strings.TrimSpace(name))
}
