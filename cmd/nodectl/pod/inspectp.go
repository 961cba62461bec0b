package pod

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// NewInspect is `nodectl inspectp`.
func NewInspect(cli *command.CLI) *cobra.Command {
	var source string
	cmd := &cobra.Command{
		Use:   "inspectp [OPTIONS] POD [POD...]",
		Short: "Return low-level information on kubelet's pods",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Runtime()
			if err != nil {
				return err
			}
			found := []any{}
			failure := cli.Each(args, func(name string) error {
				value, err := inspect(cmd.Context(), client, name)
				if err == nil {
					found = append(found, value)
				}
				return err
			}, nil)
			if source == "" || source == "json" {
				return errors.Join(format.Value(cli.Out, source, found), failure)
			}
			for _, value := range found {
				if err := format.Value(cli.Out, source, value); err != nil {
					return err
				}
			}
			return failure
		},
		ValidArgsFunction: Completion(cli),
	}
	cmd.Flags().StringVarP(&source, "format", "f", "", `Format output: "json" or a Go template`)
	return cmd
}

// inspect is a pod's status, and what the agent tells of it besides, as
// crictl's inspectp shows it.
func inspect(ctx context.Context, client runtime.RuntimeServiceClient, name string) (any, error) {
	id, err := find(ctx, client, name)
	if err != nil {
		return nil, err
	}
	resp, err := client.PodSandboxStatus(ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return nil, err
	}
	raw, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(resp.GetStatus())
	if err != nil {
		return nil, err
	}
	value := map[string]any{"status": json.RawMessage(raw)}
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
