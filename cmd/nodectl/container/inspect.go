package container

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
)

// Inspect returns a container as docker's inspect shows it, a value that
// encodes to JSON with docker's names. sizes adds what it takes on disk.
func Inspect(ctx context.Context, cli *command.CLI, name string, sizes bool) (any, error) {
	client, err := cli.Containers()
	if err != nil {
		return nil, err
	}
	info, err := client.Inspect(ctx, &nodev1.InspectRequest{Container: name, Sizes: sizes})
	if err != nil {
		return nil, err
	}
	out := inspection(info)
	if sizes {
		out.SizeRw, out.SizeRootFs = &info.Container.SizeRw, &info.Container.SizeRootFs
	}
	return out, nil
}
