package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"
)

// maxConfig bounds a pod's configuration file, in bytes.
const maxConfig = 16 << 20

// NewRun is `nodectl runp`.
func NewRun(cli *command.CLI) *cobra.Command {
	var handler string
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "runp [OPTIONS] POD-CONFIG.(json|yaml)",
		Short: "Run a pod as kubelet would, from a file with a PodSandboxConfig of CRI; - is standard input",
		Args:  command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := readConfig(cli, args[0])
			if err != nil {
				return err
			}
			client, err := cli.Runtime()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if patience > 0 {
				bounded, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				ctx = bounded
			}
			resp, err := client.RunPodSandbox(ctx, &runtime.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cli.Out, resp.GetPodSandboxId())
			return err
		},
	}
	cmd.Flags().StringVarP(&handler, "runtime", "r", "", "Runtime handler to use")
	cmd.Flags().DurationVarP(&patience, "cancel-timeout", "T", 0, "Give up after this time, such as 30s")
	return cmd
}

// readConfig reads a pod's configuration, in the names of CRI's protocol
// buffers or those of their JSON.
func readConfig(cli *command.CLI, path string) (*runtime.PodSandboxConfig, error) {
	in := io.Reader(cli.In)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxConfig {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxConfig)
	}
	config := &runtime.PodSandboxConfig{}
	text, err := yaml.YAMLToJSON(raw)
	if err == nil {
		err = protojson.Unmarshal(text, config)
	}
	if err != nil {
		return nil, fmt.Errorf("pod configuration %s: %w", path, err)
	}
	if config.GetMetadata().GetName() == "" {
		return nil, fmt.Errorf("pod configuration %s: metadata.name is missing", path)
	}
	return config, nil
}

// NewStop is `nodectl stopp`.
func NewStop(cli *command.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "stopp POD [POD...]",
		Short: "Stop one or more of kubelet's pods",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Runtime()
			if err != nil {
				return err
			}
			return cli.Each(args, func(name string) error {
				id, err := find(cmd.Context(), client, name)
				if err == nil {
					_, err = client.StopPodSandbox(cmd.Context(), &runtime.StopPodSandboxRequest{PodSandboxId: id})
				}
				return err
			}, cli.PrintArg)
		},
		ValidArgsFunction: Completion(cli),
	}
}

// NewRemove is `nodectl rmp`.
func NewRemove(cli *command.CLI) *cobra.Command {
	var force, all bool
	cmd := &cobra.Command{
		Use:   "rmp [OPTIONS] POD [POD...]",
		Short: "Remove one or more of kubelet's pods",
		Args: func(cmd *cobra.Command, args []string) error {
			if all {
				return command.NoArgs(cmd, args)
			}
			return command.MinArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Runtime()
			if err != nil {
				return err
			}
			if all {
				if args, err = everyID(cmd.Context(), client); err != nil {
					return err
				}
			}
			return cli.Each(args, func(name string) error { return remove(cmd.Context(), client, name, force) },
				cli.PrintArg)
		},
		ValidArgsFunction: Completion(cli),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Stop a pod that is ready, with its containers, before it is removed")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all pods")
	return cmd
}

func everyID(ctx context.Context, client runtime.RuntimeServiceClient) ([]string, error) {
	all, err := list(ctx, client)
	var ids []string
	for _, p := range all {
		ids = append(ids, p.GetId())
	}
	return ids, err
}

func remove(ctx context.Context, client runtime.RuntimeServiceClient, name string, force bool) error {
	id, err := find(ctx, client, name)
	if err != nil {
		return err
	}
	status, err := client.PodSandboxStatus(ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		return err
	}
	ready := status.GetStatus().GetState() == runtime.PodSandboxState_SANDBOX_READY
	switch {
	case ready && !force:
		return fmt.Errorf("cannot remove pod %q: pod is ready: stop the pod before removing or force remove", name)
	case ready:
		if _, err := client.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
			return errors.Join(fmt.Errorf("stop pod %s", name), err)
		}
	}
	_, err = client.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: id})
	return err
}
