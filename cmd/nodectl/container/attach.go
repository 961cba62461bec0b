package container

import (
	"context"
	"errors"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewAttach is `nodectl attach`.
func NewAttach(cli *command.CLI) *cobra.Command {
	var (
		noStdin, sigProxy bool
		detachKeys        string
	)
	cmd := &cobra.Command{
		Use:   "attach [OPTIONS] CONTAINER",
		Short: "Attach local standard input, output, and error streams to a running container",
		Args:  command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return attachTo(cmd.Context(), cli, attachOptions{
				name: args[0], stdin: !noStdin, sigProxy: sigProxy, detachKeys: detachKeys,
			})
		},
	}
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	cmd.Flags().StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

// attachOptions say what is attached to.
type attachOptions struct {
	name                   string
	stdin, start, sigProxy bool
	detachKeys             string
}

// attachTo attaches to a container that was made before.
func attachTo(ctx context.Context, cli *command.CLI, o attachOptions) error {
	keys, err := cli.DetachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	client, err := cli.Containers()
	if err != nil {
		return err
	}
	info, err := client.Inspect(ctx, &nodev1.InspectRequest{Container: o.name})
	if err != nil {
		return err
	}
	c := info.GetContainer()
	switch {
	case c.GetState() == "paused":
		return errors.New("You cannot attach to a paused container, unpause it first")
	case c.GetState() == "restarting" && !o.start:
		return errors.New("You cannot attach to a restarting container, wait until it is running")
	case c.GetState() != "running" && !o.start:
		return errors.New("You cannot attach to a stopped container, start it first")
	}
	stdin := o.stdin && info.GetSpec().GetStdin()
	if err := checkTerminal(cli, stdin, c.GetTty()); err != nil {
		return err
	}
	return foreground(ctx, cli, client, foregroundOptions{
		id: c.GetId(), tty: c.GetTty(), stdin: stdin, start: o.start,
		sigProxy: o.sigProxy && !c.GetTty(), keys: keys,
	})
}
