package nodeapi

import (
	"github.com/nodeagent/nodeagent/network/userdefined"
	"github.com/nodeagent/nodeagent/sandbox"
)

// eventNetwork is the type of events of networks.
const eventNetwork = "network"

// emitNetwork tells what happened to a network.
func (s *Server) emitNetwork(action string, n userdefined.Network) {
	s.emit(eventNetwork, action, n.ID, map[string]string{"name": n.Name, "type": n.Driver})
}

// emitMember tells that a container joined or left a network.
func (s *Server) emitMember(action, networkID, name, driver string, c sandbox.Container) {
	s.emit(eventNetwork, action, networkID, map[string]string{"container": c.ID, "name": name, "type": driver})
}

// emitNetworks tells of all networks of a container that starts or ended.
func (s *Server) emitNetworks(action string, c sandbox.Container) {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil || c.Owner != sandbox.OwnerNodectl {
		return
	}
	for _, e := range s.endpoints(pod) {
		s.emitMember(action, e.GetNetworkId(), e.GetNetworkName(), s.driverOf(e.GetNetworkName()), c)
	}
}

// driverOf is a network's driver; what is gone has none.
func (s *Server) driverOf(name string) string {
	switch s.predefinedName(name) {
	case networkNone:
		return "null"
	case "":
		n, err := s.networks.Find(name)
		if err != nil {
			return ""
		}
		return n.Driver
	default:
		return name
	}
}
