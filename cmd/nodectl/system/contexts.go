package system

import (
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// NewContexts is `nodectl context ls`: the one context there is, which is the
// socket that --host or the environment names.
func NewContexts(cli *command.CLI) *cobra.Command {
	var quiet bool
	var source string
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List contexts",
		Args:    command.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			list := format.List{Format: source, Header: contextHeader, Default: `{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}`}
			if quiet {
				list.Format = "{{.Name}}"
			}
			list.Rows = []any{contextRow{cli.Host}}
			return list.Write(cli.Out)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show context names")
	cmd.Flags().StringVar(&source, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	return cmd
}

// contextHeader are the headers of context ls.
var contextHeader = format.Header{"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"}

// contextRow is the context; its methods are the fields of templates.
type contextRow struct{ host string }

// Current says that it is the one in use.
func (r contextRow) Current() bool { return true }

// Name is docker's for what needs no context.
func (r contextRow) Name() string { return "default" }

// Description says what it is made of.
func (r contextRow) Description() string {
	return "Current " + command.HostVariable + " based configuration"
}

// DockerEndpoint is the socket, under docker's name.
func (r contextRow) DockerEndpoint() string { return r.host }

// Error would say what is wrong with it.
func (r contextRow) Error() string { return "" }
