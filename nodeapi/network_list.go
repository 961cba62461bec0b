package nodeapi

import (
	"context"
	"slices"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/network/userdefined"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// List gives all networks, by name.
func (s *peopleNetworks) List(context.Context, *nodev1.ListNetworksRequest) (*nodev1.ListNetworksResponse, error) {
	resp := &nodev1.ListNetworksResponse{}
	for _, name := range predefined {
		resp.Networks = append(resp.Networks, s.predefinedInfo(name))
	}
	for _, n := range s.networks.Networks() {
		resp.Networks = append(resp.Networks, s.networkInfo(n))
	}
	slices.SortFunc(resp.Networks, func(a, b *nodev1.NetworkInfo) int { return strings.Compare(a.GetName(), b.GetName()) })
	return resp, nil
}

// networkInfo is a network as the node API shows it.
func (s *Server) networkInfo(n userdefined.Network) *nodev1.NetworkInfo {
	info := &nodev1.NetworkInfo{
		Id: n.ID, Name: n.Name, Driver: n.Driver, CreatedAt: timestamppb.New(n.CreatedAt), Internal: n.Internal,
		Ipv4: n.IPv4, Ipv6: n.IPv6, Options: n.Options, Labels: n.Labels, Attachable: n.Attachable,
	}
	for _, subnet := range n.Subnets {
		m := &nodev1.Subnet{Subnet: subnet.Prefix.String(), Gateway: subnet.Gateway.String()}
		if subnet.Range.IsValid() {
			m.IpRange = subnet.Range.String()
		}
		for name, addr := range subnet.Auxiliary {
			if m.Auxiliary == nil {
				m.Auxiliary = map[string]string{}
			}
			m.Auxiliary[name] = addr.String()
		}
		info.Subnets = append(info.Subnets, m)
	}
	for _, podID := range s.networks.Members(n.ID) {
		info.InUse = true
		pod, err := s.sandboxes.Pod(podID)
		c, ok := s.podContainer(podID)
		if err == nil && ok && running(c) {
			info.Containers = append(info.Containers, s.networkMember(c, pod, n.ID))
		}
	}
	return info
}

// networkMember is a container as a network shows it.
func (s *Server) networkMember(c sandbox.Container, pod sandbox.Pod, networkID string) *nodev1.NetworkMember {
	m := &nodev1.NetworkMember{ContainerId: c.ID, Name: c.Config.GetMetadata().GetName()}
	for _, e := range s.endpoints(pod) {
		if e.GetNetworkId() == networkID {
			m.EndpointId, m.Mac, m.Ipv4, m.Ipv6 = e.GetEndpointId(), e.GetMac(), e.GetIpv4(), e.GetIpv6()
		}
	}
	return m
}

// predefinedInfo is a network that is always there. Who is on it are nodectl's
// containers that run.
func (s *Server) predefinedInfo(name string) *nodev1.NetworkInfo {
	id := s.predefinedID(name)
	info := &nodev1.NetworkInfo{
		Id: id, Name: name, Driver: name, Ipv4: true, Predefined: true, InUse: true, CreatedAt: timestamppb.New(s.started),
	}
	if name == networkNone {
		info.Driver = "null"
	}
	if name == networkBridge {
		info.Subnets = s.nodeSubnets()
		for _, subnet := range info.GetSubnets() {
			info.Ipv6 = info.Ipv6 || strings.Contains(subnet.GetSubnet(), ":")
		}
	}
	for _, c := range s.sandboxes.Containers() {
		if c.Owner != sandbox.OwnerNodectl || !running(c) {
			continue
		}
		pod, err := s.sandboxes.Pod(c.PodID)
		if err == nil && slices.Contains(s.networkNames(pod), name) {
			info.Containers = append(info.Containers, s.networkMember(c, pod, id))
		}
	}
	return info
}

// nodeSubnets are those of the network that is configured on the node, where
// it says.
func (s *Server) nodeSubnets() []*nodev1.Subnet {
	told, ok := s.network.(interface{ DefaultSubnets() []string })
	if !ok {
		return nil
	}
	var list []*nodev1.Subnet
	for _, subnet := range told.DefaultSubnets() {
		list = append(list, &nodev1.Subnet{Subnet: subnet})
	}
	return list
}
