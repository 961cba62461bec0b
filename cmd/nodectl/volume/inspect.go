package volume

import (
	"context"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
)

// inspected has docker's names, which templates use.
type inspected struct {
	CreatedAt  string
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
}

// Inspect returns a volume as docker's inspect shows it.
func Inspect(ctx context.Context, cli *command.CLI, name string) (any, error) {
	client, err := cli.Volumes()
	if err != nil {
		return nil, err
	}
	v, err := client.Inspect(ctx, &nodev1.InspectVolumeRequest{Name: name})
	if err != nil {
		return nil, err
	}
	return inspected{
		CreatedAt: v.GetCreatedAt().AsTime().Format(time.RFC3339), Driver: v.GetDriver(), Labels: v.GetLabels(),
		Mountpoint: v.GetMountpoint(), Name: v.GetName(), Options: v.GetOptions(), Scope: "local",
	}, nil
}
