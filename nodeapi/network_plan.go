package nodeapi

import (
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// networking is what a specification says of networks, resolved.
type networking struct {
	// membership is that of a pod on people's networks, or on none; nil for
	// all others.
	membership *network.Membership
	// shared is the pod whose network is shared; nil for all others.
	shared *sandbox.Pod
	// mac is the hardware address wanted on the node's own network.
	mac string
}

// planNetworks resolves the networks of a specification, in which it writes
// names and IDs out, and refuses what contradicts itself.
func (s *Server) planNetworks(spec *nodev1.ContainerSpec) (networking, error) {
	net := spec.GetNetwork()
	if name, ok := strings.CutPrefix(net.GetMode(), networkContainer); ok {
		if len(spec.GetLinks()) > 0 {
			return networking{}, noLinks("container")
		}
		return s.planShared(spec, name)
	}
	if p := s.predefinedName(net.GetMode()); p != "" {
		net.Mode = p
	}
	if len(net.GetEndpoints()) == 0 && !s.isPredefined(net.GetMode()) {
		net.Endpoints = []*nodev1.EndpointSpec{{Network: net.GetMode()}}
	}
	if s.isPredefined(net.GetMode()) {
		if err := s.planLinks(spec); err != nil {
			return networking{}, err
		}
		return s.planPredefined(net)
	}
	// On a network of people's a link is a name that its server knows, so
	// that it follows the container.
	net.Endpoints[0].Links = append(net.Endpoints[0].Links, spec.GetLinks()...)
	return s.planEndpoints(net)
}

func (s *Server) isPredefined(mode string) bool { return s.predefinedName(mode) != "" }

// planPredefined is planNetworks for the networks that are always there.
func (s *Server) planPredefined(net *nodev1.Network) (networking, error) {
	for i, e := range net.GetEndpoints() {
		switch {
		case i > 0:
			return networking{}, failf(errdefs.ErrInvalidArgument,
				"conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		case len(e.GetAliases()) > 0:
			return networking{}, failf(errdefs.ErrInvalidArgument, "network-scoped alias is supported only for containers in user defined networks")
		case e.GetIpv4() != "" || e.GetIpv6() != "":
			return networking{}, failf(errdefs.ErrInvalidArgument, "user specified IP address is supported on user defined networks only")
		case e.GetMac() != "" && net.GetMode() == networkHost:
			return networking{}, failf(errdefs.ErrInvalidArgument, "conflicting options: mac-address and the network mode")
		}
	}
	if net.GetMode() == networkNone {
		return networking{membership: &network.Membership{}}, nil
	}
	plan := networking{}
	for _, e := range net.GetEndpoints() {
		plan.mac = e.GetMac()
	}
	return plan, checkMAC(plan.mac)
}

// planEndpoints is planNetworks for people's networks.
func (s *Server) planEndpoints(net *nodev1.Network) (networking, error) {
	plan := networking{membership: &network.Membership{}}
	seen := map[string]bool{}
	for i, e := range net.GetEndpoints() {
		if s.isPredefined(e.GetNetwork()) {
			return plan, failf(errdefs.ErrInvalidArgument,
				"conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		n, err := s.networks.Find(e.GetNetwork())
		if err != nil {
			return plan, personal(err)
		}
		if seen[n.ID] {
			return plan, failf(errdefs.ErrInvalidArgument, "network %q is specified multiple times", n.Name)
		}
		seen[n.ID] = true
		spec, err := endpointSpec(e)
		if err != nil {
			return plan, err
		}
		spec.Network = n.ID
		if err := s.networks.CheckEndpoint(spec); err != nil {
			return plan, personal(err)
		}
		e.Network = n.Name
		if i == 0 {
			net.Mode = n.Name
		}
		plan.membership.Endpoints = append(plan.membership.Endpoints, spec)
	}
	plan.membership.Servers = serversOf(&nodev1.ContainerSpec{Network: net})
	return plan, nil
}

// planShared is planNetworks for a container that shares another's network.
func (s *Server) planShared(spec *nodev1.ContainerSpec, name string) (networking, error) {
	net := spec.GetNetwork()
	conflict := func(what string) error {
		return failf(errdefs.ErrInvalidArgument, "conflicting options: %s", what)
	}
	switch {
	case name == "":
		return networking{}, failf(errdefs.ErrInvalidArgument, "Invalid network mode: invalid container format container:<name|id>")
	case spec.GetHostname() != "":
		return networking{}, conflict("hostname and the network mode")
	case len(net.GetDns())+len(net.GetDnsSearch())+len(net.GetDnsOptions()) > 0:
		return networking{}, conflict("dns and the network mode")
	case len(net.GetHosts()) > 0:
		return networking{}, conflict("custom host-to-IP mapping and the network mode")
	case len(net.GetPorts()) > 0 || net.GetPublishAll():
		return networking{}, conflict("port publishing and the container type network mode")
	case len(net.GetExpose()) > 0:
		return networking{}, conflict("port exposing and the container type network mode")
	}
	if len(net.GetEndpoints()) > 0 {
		if len(net.GetEndpoints()) > 1 || net.GetEndpoints()[0].GetMac() != "" {
			return networking{}, conflict("container type network can't be used with links, aliases or addresses")
		}
		net.Endpoints = nil
	}
	c, err := s.find(name)
	if err != nil {
		return networking{}, err
	}
	pod, err := s.sharedPod(c)
	if err != nil {
		return networking{}, err
	}
	net.Mode = networkContainer + c.ID
	spec.Hostname = pod.Config.GetHostname()
	return networking{shared: &pod}, nil
}

// sharedPod is the pod whose network namespace a container is in.
func (s *Server) sharedPod(c sandbox.Container) (sandbox.Pod, error) {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil {
		return pod, err
	}
	if o := pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(); o.GetNetwork() == runtime.NamespaceMode_TARGET {
		if pod, err = s.sandboxes.Pod(o.GetTargetId()); err != nil {
			return pod, failf(errdefs.ErrFailedPrecondition, "cannot join network of a non running container: %s", c.ID)
		}
	}
	if pod.State != sandbox.PodReady {
		return pod, failf(errdefs.ErrFailedPrecondition, "cannot join network of a non running container: %s", c.ID)
	}
	return pod, nil
}

// applyTo makes CRI's options those of a container that shares a network.
func (n networking) applyTo(o *runtime.NamespaceOption) *runtime.NamespaceOption {
	switch {
	case n.shared == nil:
	case n.shared.NetNS == "":
		o.Network = runtime.NamespaceMode_NODE
	default:
		o.Network, o.TargetId = runtime.NamespaceMode_TARGET, n.shared.ID
	}
	return o
}

// checkJoined refuses to start a container one of whose networks is gone.
func (s *Server) checkJoined(pod sandbox.Pod) error {
	if err := s.networks.CheckNetworks(pod.ID); err != nil {
		return personal(err)
	}
	o := pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if o.GetNetwork() != runtime.NamespaceMode_TARGET {
		return nil
	}
	c, ok := s.podContainer(o.GetTargetId())
	if other, err := s.sandboxes.Pod(o.GetTargetId()); err != nil || other.State != sandbox.PodReady {
		name := o.GetTargetId()
		if mode, found := strings.CutPrefix(s.spec(pod).GetNetwork().GetMode(), networkContainer); found {
			name = mode
		}
		return failf(errdefs.ErrFailedPrecondition, "cannot join network of a non running container: %s", name)
	} else if ok && !running(c) {
		return failf(errdefs.ErrFailedPrecondition, "cannot join network of a non running container: %s", c.ID)
	}
	return nil
}
