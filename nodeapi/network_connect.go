package nodeapi

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/network/userdefined"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Connect puts a container on a further network.
func (s *peopleNetworks) Connect(ctx context.Context, req *nodev1.ConnectNetworkRequest) (*nodev1.ConnectNetworkResponse, error) {
	wish := req.GetEndpoint()
	name := s.predefinedName(wish.GetNetwork())
	if name == "" {
		if _, err := s.networks.Find(wish.GetNetwork()); err != nil {
			return nil, personal(err)
		}
	}
	c, pod, err := s.movable(req.GetContainer(), name)
	if err != nil {
		return nil, err
	}
	if err := s.checkJoinable(wish.GetNetwork(), name, c, pod); err != nil {
		return nil, err
	}
	spec, err := endpointSpec(wish)
	if err != nil {
		return nil, err
	}
	if name == networkBridge && (len(spec.Aliases) > 0 || len(spec.Links) > 0 || spec.IPv4.IsValid() || spec.IPv6.IsValid()) {
		return nil, failf(errdefs.ErrInvalidArgument, "user specified IP address is supported on user defined networks only")
	}
	err = s.changeNetworks(pod, func(joining userdefined.Pod) error {
		if name == networkBridge {
			return s.networks.ConnectNode(ctx, joining, s.nodeAttachment(pod))
		}
		return s.networks.Connect(ctx, joining, spec)
	})
	if err == nil && running(c) {
		s.tellMember("connect", wish.GetNetwork(), c)
	}
	return &nodev1.ConnectNetworkResponse{}, err
}

// checkJoinable refuses what a container is on already, and the network that is
// none.
func (s *Server) checkJoinable(network, predefined string, c sandbox.Container, pod sandbox.Pod) error {
	if predefined == networkNone {
		return failf(errdefs.ErrPermissionDenied, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	id := s.predefinedID(predefined)
	if n, err := s.networks.Find(network); err == nil && predefined == "" {
		id, predefined = n.ID, n.Name
	}
	for _, e := range s.endpoints(pod) {
		if e.GetNetworkId() == id {
			return failf(errdefs.ErrPermissionDenied, "endpoint with name %s already exists in network %s", c.Config.GetMetadata().GetName(), predefined)
		}
	}
	return nil
}

// tellMember tells that a running container joined or left a network.
func (s *Server) tellMember(action, network string, c sandbox.Container) {
	id, name := s.predefinedID(s.predefinedName(network)), s.predefinedName(network)
	if n, err := s.networks.Find(network); err == nil && name == "" {
		id, name = n.ID, n.Name
	}
	s.emitMember(action, id, name, s.driverOf(name), c)
}

// movable finds a container that may join and leave networks. predefined is the
// network's name when it is one of those that are always there.
func (s *Server) movable(name, predefined string) (sandbox.Container, sandbox.Pod, error) {
	c, err := s.find(name)
	if err != nil {
		return c, sandbox.Pod{}, err
	}
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil {
		return c, pod, err
	}
	mode := pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork()
	switch {
	case c.Owner != sandbox.OwnerNodectl:
		return c, pod, failf(errdefs.ErrPermissionDenied, "container %s is one of a pod's, whose networks are not changed", c.ID)
	case predefined == networkHost || (mode == runtime.NamespaceMode_NODE && predefined != ""):
		return c, pod, failf(errdefs.ErrPermissionDenied, "container cannot be disconnected from host network or connected to host network")
	case mode != runtime.NamespaceMode_POD:
		return c, pod, failf(errdefs.ErrPermissionDenied, "container sharing network namespace with another container or host cannot be connected to any other network")
	case pod.State != sandbox.PodReady:
		return c, pod, failf(errdefs.ErrFailedPrecondition, "container %s is %s: its networks are made when it starts", c.ID, c.State)
	}
	return c, pod, nil
}

// changeNetworks does what changes a pod's networks, and then brings its files
// in order.
func (s *Server) changeNetworks(pod sandbox.Pod, change func(userdefined.Pod) error) error {
	before, people := s.podAddresses(pod), s.onPeople(pod)
	joining := userdefined.Pod{ID: pod.ID, NetNS: pod.NetNS, OnNode: true, Ports: publishedOf(pod), Servers: serversOf(s.spec(pod))}
	if err := change(joining); err != nil {
		return personal(err)
	}
	if err := s.recordMembership(pod); err != nil {
		return err
	}
	if err := s.rewriteNetworkFiles(pod, before, people); err != nil {
		return fmt.Errorf("networks of container are changed, but not its files: %w", err)
	}
	return nil
}

// serversOf are the resolvers a person chose, which were checked.
func serversOf(spec *nodev1.ContainerSpec) []netip.Addr {
	var list []netip.Addr
	for _, text := range spec.GetNetwork().GetDns() {
		if addr, err := netip.ParseAddr(text); err == nil {
			list = append(list, addr)
		}
	}
	return list
}

// recordMembership records which networks a pod is on now, for when it is made
// again after a reboot.
func (s *Server) recordMembership(pod sandbox.Pod) error {
	list, member, onNode := s.networks.Endpoints(pod.ID)
	if !member {
		return s.sandboxes.SetNetworks(pod.ID, nil)
	}
	m := &network.Membership{Node: onNode, Servers: serversOf(s.spec(pod))}
	for _, e := range list {
		m.Endpoints = append(m.Endpoints, e.EndpointSpec)
	}
	return s.sandboxes.SetNetworks(pod.ID, m)
}

// recordMemberships catches up with what an agent did that was killed before
// it recorded it.
func (s *Server) recordMemberships() {
	for _, pod := range s.sandboxes.Pods() {
		if pod.Owner != sandbox.OwnerNodectl || pod.State != sandbox.PodReady || pod.NetNS == "" {
			continue
		}
		if err := s.recordMembership(pod); err != nil {
			logrus.WithError(err).WithField("pod", pod.ID).Warn("networks of a container are not recorded")
		}
	}
}

// publishedOf are a pod's published ports as networks have them.
func publishedOf(pod sandbox.Pod) []network.PortMapping {
	var out []network.PortMapping
	for _, p := range pod.Config.GetPortMappings() {
		if p.GetHostPort() == 0 {
			continue
		}
		m := network.PortMapping{
			Protocol:      network.Protocol(strings.ToLower(p.GetProtocol().String())),
			ContainerPort: uint16(p.GetContainerPort()), HostPort: uint16(p.GetHostPort()),
		}
		m.HostIP, _ = netip.ParseAddr(p.GetHostIp())
		out = append(out, m)
	}
	return out
}

// nodeAttachment is a pod as the node's own network is told of it.
func (s *Server) nodeAttachment(pod sandbox.Pod) network.Attachment {
	meta := pod.Config.GetMetadata()
	return network.Attachment{
		PodID: pod.ID, NetNS: pod.NetNS, Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid(),
		Ports: publishedOf(pod), CgroupParent: pod.CgroupPath,
	}
}
