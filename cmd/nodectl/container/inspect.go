package container

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
)

// Inspect returns a container as docker's inspect shows it, a value that
// encodes to JSON with docker's names.
func Inspect(ctx context.Context, cli *command.CLI, name string) (any, error) {
	client, err := cli.Containers()
	if err != nil {
		return nil, err
	}
	info, err := client.Inspect(ctx, &nodev1.InspectRequest{Container: name})
	if err != nil {
		return nil, err
	}
	return inspection(info), nil
}
