package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/network/userdefined"
)

// Disconnect takes a container off a network.
func (s *peopleNetworks) Disconnect(ctx context.Context, req *nodev1.DisconnectNetworkRequest) (*nodev1.DisconnectNetworkResponse, error) {
	name := s.predefinedName(req.GetNetwork())
	if name == "" {
		if _, err := s.networks.Find(req.GetNetwork()); err != nil {
			return nil, personal(err)
		}
	}
	c, pod, err := s.movable(req.GetContainer(), name)
	if err != nil {
		if req.GetForce() && errdefs.IsNotFound(err) {
			// What is gone is on no network.
			return &nodev1.DisconnectNetworkResponse{}, nil
		}
		return nil, err
	}
	if name == networkNone {
		return &nodev1.DisconnectNetworkResponse{}, nil
	}
	err = s.changeNetworks(pod, func(leaving userdefined.Pod) error {
		if name == networkBridge {
			return s.networks.DisconnectNode(ctx, leaving, s.nodeAttachment(pod))
		}
		return s.networks.Disconnect(ctx, pod.ID, req.GetNetwork())
	})
	if errdefs.IsNotFound(err) {
		network := req.GetNetwork()
		if n, found := s.networks.Find(network); found == nil {
			network = n.Name
		}
		return nil, failf(errdefs.ErrPermissionDenied, "container %s is not connected to network %s", c.ID, network)
	}
	if err == nil && running(c) {
		s.tellMember("disconnect", req.GetNetwork(), c)
	}
	return &nodev1.DisconnectNetworkResponse{}, err
}
