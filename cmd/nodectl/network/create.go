// Package network holds the commands of nodectl that are about networks, one
// file each.
package network

import (
	"fmt"
	"net/netip"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// createFlags are the flags of create.
type createFlags struct {
	driver, ipamDriver               string
	subnets, ranges, gateways, aux   []string
	options, labels                  []string
	internal, attachable, ipv4, ipv6 bool
	scope                            string
}

// NewCreate is `nodectl network create`.
func NewCreate(cli *command.CLI) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Create a network",
		Args:  command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(args[0])
			if err != nil {
				return err
			}
			client, err := cli.Networks()
			if err != nil {
				return err
			}
			resp, err := client.Create(cmd.Context(), req)
			if err != nil {
				return err
			}
			if resp.GetWarning() != "" {
				fmt.Fprintln(cli.Err, "WARNING: "+resp.GetWarning())
			}
			fmt.Fprintln(cli.Out, resp.GetId())
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.driver, "driver", "d", "bridge", `Driver to manage the Network ("bridge", "macvlan", "ipvlan")`)
	flags.StringArrayVarP(&f.options, "opt", "o", nil, "Set driver specific options")
	command.AddLabels(flags, &f.labels, "", "Set metadata on a network")
	flags.BoolVar(&f.internal, "internal", false, "Restrict external access to the network")
	flags.BoolVar(&f.ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	flags.BoolVar(&f.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	flags.BoolVar(&f.attachable, "attachable", false, "Enable manual container attachment")
	flags.StringVar(&f.ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	flags.StringSliceVar(&f.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	flags.StringSliceVar(&f.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	flags.StringSliceVar(&f.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	flags.StringArrayVar(&f.aux, "aux-address", nil, "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	flags.StringVar(&f.scope, "scope", "", "Control the network's scope")
	return cmd
}

// request makes what is asked of the agent.
func (f *createFlags) request(name string) (*nodev1.CreateNetworkRequest, error) {
	if f.ipamDriver != "default" {
		return nil, fmt.Errorf("could not find IPAM driver %q", f.ipamDriver)
	}
	if f.scope != "" && f.scope != "local" {
		return nil, fmt.Errorf("invalid network scope: %s", f.scope)
	}
	subnets, err := f.ipam()
	if err != nil {
		return nil, err
	}
	return &nodev1.CreateNetworkRequest{
		Name: name, Driver: f.driver, Subnets: subnets, Internal: f.internal, Attachable: f.attachable,
		Ipv6: f.ipv6, NoIpv4: !f.ipv4, Options: command.Pairs(f.options), Labels: command.Pairs(f.labels),
	}, nil
}

// ipam puts ranges, gateways and auxiliary addresses to the subnets they are in.
func (f *createFlags) ipam() ([]*nodev1.Subnet, error) {
	if len(f.subnets) < len(f.ranges) || len(f.subnets) < len(f.gateways) {
		return nil, fmt.Errorf("every ip-range or gateway must have a corresponding subnet")
	}
	var list []*nodev1.Subnet
	var prefixes []netip.Prefix
	for _, text := range f.subnets {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("invalid CIDR address: %s", text)
		}
		for _, o := range prefixes {
			if o.Overlaps(p) {
				return nil, fmt.Errorf("multiple overlapping subnet configuration is not supported")
			}
		}
		prefixes = append(prefixes, p)
		list = append(list, &nodev1.Subnet{Subnet: text})
	}
	place := func(what, text string, addr netip.Addr, set func(*nodev1.Subnet) error) error {
		for i, p := range prefixes {
			if p.Contains(addr) {
				return set(list[i])
			}
		}
		return fmt.Errorf("no matching subnet for %s %s", what, text)
	}
	for _, text := range f.ranges {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("invalid CIDR address: %s", text)
		}
		if err := place("range", text, p.Addr(), once(text, func(s *nodev1.Subnet) *string { return &s.IpRange }, "ranges")); err != nil {
			return nil, err
		}
	}
	for _, text := range f.gateways {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("invalid IP address: %s", text)
		}
		if err := place("gateway", text, addr, once(text, func(s *nodev1.Subnet) *string { return &s.Gateway }, "gateways")); err != nil {
			return nil, err
		}
	}
	return list, f.auxiliary(place)
}

// once sets what may be given once for each subnet.
func once(text string, field func(*nodev1.Subnet) *string, what string) func(*nodev1.Subnet) error {
	return func(s *nodev1.Subnet) error {
		if *field(s) != "" {
			return fmt.Errorf("cannot configure multiple %s (%s, %s) on the same subnet (%s)", what, text, *field(s), s.GetSubnet())
		}
		*field(s) = text
		return nil
	}
}

// auxiliary reads NAME=ADDRESS.
func (f *createFlags) auxiliary(place func(what, text string, addr netip.Addr, set func(*nodev1.Subnet) error) error) error {
	for _, pair := range f.aux {
		name, text, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("invalid argument %q for \"--aux-address\" flag: it must be NAME=ADDRESS", pair)
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("invalid IP address: %s", text)
		}
		err = place("aux-address", text, addr, func(s *nodev1.Subnet) error {
			if s.Auxiliary == nil {
				s.Auxiliary = map[string]string{}
			}
			s.Auxiliary[name] = text
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
