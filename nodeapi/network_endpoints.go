package nodeapi

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/network/userdefined"
	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// endpoints are a pod's places on networks, the one it was made on first.
func (s *Server) endpoints(pod sandbox.Pod) []*nodev1.Endpoint {
	list, member, onNode := s.networks.Endpoints(pod.ID)
	mode := pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork()
	switch {
	case mode == runtime.NamespaceMode_NODE:
		return []*nodev1.Endpoint{s.placeholder(pod, networkHost)}
	case mode == runtime.NamespaceMode_TARGET:
		return nil
	case !member || onNode:
		return append([]*nodev1.Endpoint{s.nodeEndpoint(pod)}, s.peopleEndpoints(pod, list)...)
	case len(list) == 0:
		return []*nodev1.Endpoint{s.placeholder(pod, networkNone)}
	}
	return s.peopleEndpoints(pod, list)
}

// placeholder is the place on a network that gives nothing.
func (s *Server) placeholder(pod sandbox.Pod, network string) *nodev1.Endpoint {
	return &nodev1.Endpoint{
		Spec: &nodev1.EndpointSpec{Network: network}, NetworkId: s.predefinedID(network), NetworkName: network, EndpointId: endpointID(pod.ID, network),
	}
}

// nodeEndpoint is the place on the node's own network.
func (s *Server) nodeEndpoint(pod sandbox.Pod) *nodev1.Endpoint {
	e := s.placeholder(pod, networkBridge)
	if pod.Network == nil {
		return e
	}
	e.Interface, e.Mac = s.networks.NodeInterface(pod.ID), pod.Network.MAC
	for _, prefix := range pod.Network.Addresses {
		switch {
		case prefix.Addr().Is4() && e.Ipv4 == "":
			e.Ipv4 = prefix.String()
		case prefix.Addr().Is6() && e.Ipv6 == "":
			e.Ipv6 = prefix.String()
		}
	}
	switch gateway := pod.Network.Gateway; {
	case gateway.Is4():
		e.Gateway4 = gateway.String()
	case gateway.Is6():
		e.Gateway6 = gateway.String()
	}
	return e
}

// endpointID makes up the ID of a place that has none of its own.
func endpointID(podID, network string) string {
	sum := sha256.Sum256([]byte(podID + "\x00" + network))
	return hex.EncodeToString(sum[:])
}

func (s *Server) peopleEndpoints(pod sandbox.Pod, list []userdefined.Endpoint) []*nodev1.Endpoint {
	var out []*nodev1.Endpoint
	for _, e := range list {
		m := &nodev1.Endpoint{
			Spec: &nodev1.EndpointSpec{
				Network: e.Name, Aliases: e.Aliases, Ipv4: textOf(e.IPv4), Ipv6: textOf(e.IPv6), Mac: e.MAC, DriverOptions: e.Options,
			},
			NetworkId: e.Network, NetworkName: e.Name, EndpointId: e.ID, Interface: e.Interface, Mac: e.HardwareAddr,
			Gateway4: textOf(e.Gateway4), Gateway6: textOf(e.Gateway6),
		}
		for alias, name := range e.Links {
			m.Spec.Links = append(m.Spec.Links, name+":"+alias)
		}
		slices.Sort(m.Spec.Links)
		if e.Addr4.IsValid() {
			m.Ipv4 = e.Addr4.String()
		}
		if e.Addr6.IsValid() {
			m.Ipv6 = e.Addr6.String()
		}
		m.Names = s.dnsNames(pod, e.Aliases)
		out = append(out, m)
	}
	return out
}

// dnsNames are the names that a network answers for a container while it runs.
func (s *Server) dnsNames(pod sandbox.Pod, aliases []string) []string {
	var names []string
	if c, ok := s.podContainer(pod.ID); ok {
		names = append(names, c.Config.GetMetadata().GetName())
		names = append(names, aliases...)
		names = append(names, c.ID[:min(shortID, len(c.ID))])
	}
	return names
}

func textOf(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}

// networkNames are the names of a pod's networks.
func (s *Server) networkNames(pod sandbox.Pod) []string {
	if pod.ID == "" {
		return nil
	}
	var names []string
	for _, e := range s.endpoints(pod) {
		names = append(names, e.GetNetworkName())
	}
	return names
}

// addNetworkFiles tells where the network's files are.
func (s *Server) addNetworkFiles(resp *nodev1.InspectResponse, pod sandbox.Pod) {
	key := podKey(pod)
	if o := pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(); o.GetNetwork() == runtime.NamespaceMode_TARGET {
		other, err := s.sandboxes.Pod(o.GetTargetId())
		if err != nil || podKey(other) == "" {
			return
		}
		key = podKey(other)
	}
	resp.HostsPath = s.files.path(key, hostsName)
	resp.ResolvConfPath = s.files.path(key, resolvName)
	resp.HostnamePath = s.files.path(key, hostnameName)
}
