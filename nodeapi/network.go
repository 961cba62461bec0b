package nodeapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/network/userdefined"
	"github.com/nodeagent/nodeagent/sandbox"
)

// PeopleNetworks is what the node API needs of people's networks; package
// userdefined has it.
type PeopleNetworks interface {
	Networks() []userdefined.Network
	Find(name string) (userdefined.Network, error)
	Create(ctx context.Context, req userdefined.CreateRequest) (userdefined.Network, error)
	Remove(ctx context.Context, name string) (userdefined.Network, error)
	Connect(ctx context.Context, pod userdefined.Pod, spec network.EndpointSpec) error
	Disconnect(ctx context.Context, podID, name string) error
	ConnectNode(ctx context.Context, pod userdefined.Pod, a network.Attachment) error
	DisconnectNode(ctx context.Context, pod userdefined.Pod, a network.Attachment) error
	Endpoints(podID string) (list []userdefined.Endpoint, member, onNode bool)
	NodeInterface(podID string) string
	Members(networkID string) []string
	CheckNetworks(podID string) error
	CheckEndpoint(spec network.EndpointSpec) error
	Serve(names userdefined.NamesOf)
}

// The networks that are always there.
var predefined = []string{networkBridge, networkHost, networkNone}

// networkNone is the mode of a container with nothing but a loopback interface.
const networkNone = "none"

// networkContainer begins the mode of a container that shares another's.
const networkContainer = "container:"

// predefinedID is the ID of a network that is always there, another one on
// each agent.
func (s *Server) predefinedID(name string) string {
	sum := sha256.Sum256([]byte(s.config.AgentRoot + "\x00" + name))
	return hex.EncodeToString(sum[:])
}

// predefinedName is the name of the predefined network that a person means;
// empty when it is none.
func (s *Server) predefinedName(name string) string {
	for _, p := range predefined {
		id := s.predefinedID(p)
		if name == p || name == id || (len(name) >= 12 && strings.HasPrefix(id, name)) {
			return p
		}
	}
	return ""
}

// podContainer is nodectl's container in a pod; false when there is none.
func (s *Server) podContainer(podID string) (sandbox.Container, bool) {
	if id, ok := s.ofPod.Load(podID); ok {
		c, err := s.sandboxes.Container(id.(string))
		if err == nil {
			return c, true
		}
		s.ofPod.Delete(podID)
	}
	for _, c := range s.sandboxes.Containers() {
		if c.PodID == podID && c.Owner == sandbox.OwnerNodectl {
			s.ofPod.Store(podID, c.ID)
			return c, true
		}
	}
	return sandbox.Container{}, false
}

// shortID is how much of an ID people see.
const shortID = 12

// namesOf are the names that networks answer for a pod: its container's name,
// the short form of its ID, and the host name if a person chose one. None while
// it does not run.
func (s *Server) namesOf(podID string) []string {
	c, ok := s.podContainer(podID)
	if !ok || !running(c) {
		return nil
	}
	names := []string{strings.ToLower(c.Config.GetMetadata().GetName()), c.ID[:min(shortID, len(c.ID))]}
	pod, err := s.sandboxes.Pod(podID)
	if err != nil {
		return names
	}
	// One that was not chosen is the name at the time, or the ID.
	chosen := strings.ToLower(pod.Config.GetHostname())
	if chosen != "" && chosen != strings.ToLower(pod.Config.GetMetadata().GetName()) && chosen != names[1] {
		names = append(names, chosen)
	}
	return names
}

// endpointSpec turns a person's wish into the network's.
func endpointSpec(e *nodev1.EndpointSpec) (network.EndpointSpec, error) {
	spec := network.EndpointSpec{
		Network: e.GetNetwork(), Aliases: e.GetAliases(), MAC: e.GetMac(), Options: e.GetDriverOptions(),
		GatewayPriority: e.GetGatewayPriority(),
	}
	var err error
	if spec.IPv4, err = addressOf(e.GetIpv4(), true); err != nil {
		return spec, err
	}
	if spec.IPv6, err = addressOf(e.GetIpv6(), false); err != nil {
		return spec, err
	}
	if err := checkMAC(e.GetMac()); err != nil {
		return spec, err
	}
	for _, alias := range e.GetAliases() {
		if !aliasPattern.MatchString(alias) {
			return spec, failf(errdefs.ErrInvalidArgument, "invalid network alias: %q", alias)
		}
	}
	for _, link := range e.GetLinks() {
		name, alias, ok := strings.Cut(link, ":")
		if !ok {
			alias = name
		}
		if name == "" || !aliasPattern.MatchString(alias) {
			return spec, failf(errdefs.ErrInvalidArgument, "bad format for links: %s", link)
		}
		if spec.Links == nil {
			spec.Links = map[string]string{}
		}
		spec.Links[strings.ToLower(alias)] = strings.TrimPrefix(name, "/")
	}
	return spec, nil
}
