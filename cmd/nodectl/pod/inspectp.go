package pod

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// inspectFlags are the flags of inspectp.
type inspectFlags struct {
	source, output, template string
	brief                    bool
}

// NewInspect is `nodectl inspectp`.
func NewInspect(cli *command.CLI) *cobra.Command {
	var flags inspectFlags
	cmd := &cobra.Command{
		Use:               "inspectp [OPTIONS] POD [POD...]",
		Short:             "Return low-level information on kubelet's pods",
		Args:              command.MinArgs(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return flags.run(cmd.Context(), cli, args) },
		ValidArgsFunction: Completion(cli),
	}
	f := cmd.Flags()
	f.StringVarP(&flags.source, "format", "f", "", `Format output: "json" or a Go template`)
	f.StringVarP(&flags.output, "output", "o", outputJSON, `Output format: "json", "yaml" or "go-template"`)
	f.StringVar(&flags.template, "template", "", "The template of --output go-template")
	f.BoolVarP(&flags.brief, "quiet", "q", false, "Show the status alone")
	return cmd
}

func (f *inspectFlags) run(ctx context.Context, cli *command.CLI, args []string) error {
	if err := checkOutput(f.output, outputJSON, outputYAML, outputTemplate); err != nil {
		return err
	}
	client, err := cli.Runtime()
	if err != nil {
		return err
	}
	var found []any
	failure := cli.Each(args, func(name string) error {
		value, err := inspect(ctx, client, name, f.brief)
		if err == nil {
			found = append(found, value)
		}
		return err
	}, nil)
	if len(found) == 0 {
		return failure
	}
	if err := f.write(cli, found, len(args)); err != nil {
		return err
	}
	return failure
}

// write shows pods: one as it is, as crictl does, several as a list.
func (f *inspectFlags) write(cli *command.CLI, found []any, asked int) error {
	switch {
	case f.source == "json":
		return format.Value(cli.Out, f.source, found)
	case f.source != "" || f.output == outputTemplate:
		for _, value := range found {
			template := f.template
			if f.source != "" {
				template = f.source
			}
			if err := writeAs(cli, outputTemplate, template, value); err != nil {
				return err
			}
		}
		return nil
	case asked == 1:
		return writeAs(cli, f.output, "", found[0])
	}
	return writeAs(cli, f.output, "", found)
}

// inspect is a pod's status, and what the agent tells of it besides, as
// crictl's inspectp shows it.
func inspect(ctx context.Context, client runtime.RuntimeServiceClient, name string, brief bool) (any, error) {
	id, err := find(ctx, client, name)
	if err != nil {
		return nil, err
	}
	resp, err := client.PodSandboxStatus(ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return nil, err
	}
	raw, err := message(resp.GetStatus())
	if err != nil {
		return nil, err
	}
	status, err := plain(raw)
	if err != nil {
		return nil, err
	}
	if fields, ok := status.(map[string]any); ok {
		// As crictl, which makes a date of it.
		fields["createdAt"] = time.Unix(0, resp.GetStatus().GetCreatedAt()).Format(time.RFC3339Nano)
	}
	value := map[string]any{"status": status}
	if brief {
		return plain(value)
	}
	info := map[string]any{}
	for name, text := range resp.GetInfo() {
		if json.Valid([]byte(text)) {
			info[name] = json.RawMessage(text)
		} else {
			info[name] = text
		}
	}
	value["info"] = info
	return plain(value)
}

// plain is a value made of maps alone, so that templates can reach into it.
func plain(value any) (any, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var out any
	return out, json.Unmarshal(raw, &out)
}
