package network

import (
	"errors"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewConnect is `nodectl network connect`.
func NewConnect(cli *command.CLI) *cobra.Command {
	e := &nodev1.EndpointSpec{}
	var options []string
	cmd := &cobra.Command{
		Use:   "connect [OPTIONS] NETWORK CONTAINER",
		Short: "Connect a container to a network",
		Args:  command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, text := range options {
				if name, _, ok := strings.Cut(text, "="); !ok || name == "" {
					return errors.New("invalid key/value pair format in driver options")
				}
			}
			e.Network, e.DriverOptions = args[0], command.Pairs(options)
			client, err := cli.Networks()
			if err != nil {
				return err
			}
			_, err = client.Connect(cmd.Context(), &nodev1.ConnectNetworkRequest{Container: args[1], Endpoint: e})
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&e.Ipv4, "ip", "", "IPv4 address (e.g., \"172.30.100.104\")")
	flags.StringVar(&e.Ipv6, "ip6", "", "IPv6 address (e.g., \"2001:db8::33\")")
	flags.StringArrayVar(&e.Links, "link", nil, "Add link to another container")
	flags.StringArrayVar(&e.Aliases, "alias", nil, "Add network-scoped alias for the container")
	flags.StringArrayVar(&options, "driver-opt", nil, "driver options for the network")
	flags.Int64Var(&e.GatewayPriority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values")
	return cmd
}
