package container

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewPort is `nodectl port`.
func NewPort(cli *command.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "port CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short: "List port mappings or a specific mapping for the container",
		Args:  command.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			info, err := client.Inspect(cmd.Context(), &nodev1.InspectRequest{Container: args[0]})
			if err != nil {
				return err
			}
			want := ""
			if len(args) == 2 {
				if want = strings.ToLower(args[1]); !strings.Contains(want, "/") {
					want += "/tcp"
				}
			}
			found := false
			for _, p := range portsOf(info.GetContainer()) {
				name := portName(p)
				if p.GetHostPort() == 0 || (want != "" && want != name) {
					continue
				}
				found = true
				if want == "" {
					fmt.Fprintf(cli.Out, "%s -> ", name)
				}
				fmt.Fprintln(cli.Out, hostAddress(p))
			}
			if want != "" && !found {
				return fmt.Errorf("no public port '%s' published for %s", want, args[0])
			}
			return nil
		},
	}
}

// portName is a port of a container as 80/tcp.
func portName(p *nodev1.Port) string {
	return strconv.Itoa(int(p.GetContainerPort())) + "/" + p.GetProtocol()
}

// hostAddress is where a port is published, such as 0.0.0.0:8080.
func hostAddress(p *nodev1.Port) string {
	return net.JoinHostPort(hostIP(p), strconv.Itoa(int(p.GetHostPort())))
}

// hostIP is the address of the host a port is published at.
func hostIP(p *nodev1.Port) string {
	if p.GetHostIp() == "" {
		return "0.0.0.0"
	}
	return p.GetHostIp()
}

// portsOf are the ports of a container that runs; of others none leads anywhere.
func portsOf(c *nodev1.Container) []*nodev1.Port {
	if c.GetState() != "running" && c.GetState() != "paused" {
		return nil
	}
	return c.GetPorts()
}
