package network

import (
	"context"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
)

// The types below have docker's names, which templates use.
type (
	inspected struct {
		Name       string
		ID         string `json:"Id"`
		Created    string
		Scope      string
		Driver     string
		EnableIPv4 bool
		EnableIPv6 bool
		IPAM       ipam
		Internal   bool
		Attachable bool
		Ingress    bool
		ConfigFrom configFrom
		ConfigOnly bool
		Containers map[string]member
		Options    map[string]string
		Labels     map[string]string
	}
	ipam struct {
		Driver  string
		Options map[string]string
		Config  []subnet
	}
	subnet struct {
		Subnet             string
		IPRange            string            `json:",omitempty"`
		Gateway            string            `json:",omitempty"`
		AuxiliaryAddresses map[string]string `json:",omitempty"`
	}
	configFrom struct {
		Network string
	}
	member struct {
		Name        string
		EndpointID  string
		MacAddress  string
		IPv4Address string
		IPv6Address string
	}
)

// Inspect returns a network as docker's inspect shows it, a value that encodes
// to JSON with docker's names.
func Inspect(ctx context.Context, cli *command.CLI, name string) (any, error) {
	client, err := cli.Networks()
	if err != nil {
		return nil, err
	}
	resp, err := client.Inspect(ctx, &nodev1.InspectNetworkRequest{Network: name})
	if err != nil {
		return nil, err
	}
	return inspection(resp.GetNetwork()), nil
}

func inspection(n *nodev1.NetworkInfo) inspected {
	out := inspected{
		Name: n.GetName(), ID: n.GetId(), Created: n.GetCreatedAt().AsTime().UTC().Format(time.RFC3339Nano), Scope: scope,
		Driver: n.GetDriver(), EnableIPv4: n.GetIpv4(), EnableIPv6: n.GetIpv6(), Internal: n.GetInternal(), Attachable: n.GetAttachable(),
		IPAM: ipam{Driver: "default", Options: map[string]string{}, Config: []subnet{}}, Containers: map[string]member{},
		Options: notNil(n.GetOptions()), Labels: notNil(n.GetLabels()),
	}
	for _, s := range n.GetSubnets() {
		out.IPAM.Config = append(out.IPAM.Config, subnet{s.GetSubnet(), s.GetIpRange(), s.GetGateway(), s.GetAuxiliary()})
	}
	for _, c := range n.GetContainers() {
		out.Containers[c.GetContainerId()] = member{c.GetName(), c.GetEndpointId(), c.GetMac(), c.GetIpv4(), c.GetIpv6()}
	}
	return out
}

func notNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
