package debug

import (
	"context"
	"fmt"
	"strings"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// NewOps is `nodectl ops`.
func NewOps(cli *command.CLI) *cobra.Command {
	var source string
	var quiet, noTrunc bool
	cmd := &cobra.Command{
		Use:   "ops [OPTIONS]",
		Short: "List what the agent is doing: on what, at which stage, since when, and what it waits for",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ops, err := operations(cmd.Context(), cli)
			if err != nil {
				return err
			}
			list := format.List{Format: source, Header: opsHeader, Default: `{{.Operation}}\t{{.Object}}\t{{.Name}}\t{{.Stage}}\t{{.StageFor}}\t{{.RunningFor}}\t{{.By}}`}
			for _, op := range ops {
				list.Rows = append(list.Rows, opRow{op: op, whole: noTrunc, now: time.Now()})
			}
			if quiet {
				list.Format = "{{.Object}}"
			}
			if err := list.Write(cli.Out); err != nil || quiet || source != "" {
				return err
			}
			return writeBlocked(cli, ops)
		},
	}
	cmd.Flags().StringVar(&source, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display the IDs of what is worked on")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	return cmd
}

func operations(ctx context.Context, cli *command.CLI) ([]*nodev1.Operation, error) {
	client, err := cli.Debug()
	if err != nil {
		return nil, err
	}
	resp, err := client.Operations(ctx, &nodev1.OperationsRequest{})
	return resp.GetOperations(), err
}

// writeBlocked says below the table what each waits for.
func writeBlocked(cli *command.CLI, ops []*nodev1.Operation) error {
	var out strings.Builder
	for _, op := range ops {
		if len(op.GetBlocked()) == 0 {
			continue
		}
		name := op.GetName()
		if name == "" {
			name = format.ID(op.GetObject(), false)
		}
		fmt.Fprintf(&out, "\n%s %s waits for:\n", op.GetWhat(), name)
		for _, line := range op.GetBlocked() {
			fmt.Fprintf(&out, "  %s\n", printable(line))
		}
	}
	_, err := fmt.Fprint(cli.Out, out.String())
	return err
}

// opsHeader are the headers of ops.
var opsHeader = format.Header{
	"Operation": "OPERATION", "Object": "OBJECT", "Name": "NAME", "Stage": "STAGE", "StageFor": "AT STAGE FOR",
	"RunningFor": "RUNNING FOR", "Began": "BEGAN", "By": "ASKED BY", "Blocked": "WAITS FOR",
}

// opRow is an operation as ops shows it; its methods are the fields of templates.
type opRow struct {
	op    *nodev1.Operation
	whole bool
	now   time.Time
}

// Operation is what is done.
func (r opRow) Operation() string { return r.op.GetWhat() }

// Object is the ID of what it is done with.
func (r opRow) Object() string { return format.ID(r.op.GetObject(), r.whole) }

// Name is what that is called.
func (r opRow) Name() string { return r.op.GetName() }

// Stage is the step it is at.
func (r opRow) Stage() string { return r.op.GetStage() }

// StageFor is how long it has been there.
func (r opRow) StageFor() string {
	if r.op.GetStage() == "" {
		return ""
	}
	return duration(r.now.Sub(r.op.GetStageSince().AsTime()))
}

// RunningFor is how long it has taken so far.
func (r opRow) RunningFor() string { return duration(r.now.Sub(r.op.GetBegan().AsTime())) }

// Began is when it began.
func (r opRow) Began() string { return r.op.GetBegan().AsTime().Local().Format(time.RFC3339Nano) }

// By is who asked for it.
func (r opRow) By() string {
	if r.op.GetBy() == "" {
		return "nodeagent"
	}
	return r.op.GetBy()
}

// Blocked is what it waits for.
func (r opRow) Blocked() string { return strings.Join(r.op.GetBlocked(), "; ") }
