package nodeapi

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// Inspect tells everything about one network.
func (s *peopleNetworks) Inspect(_ context.Context, req *nodev1.InspectNetworkRequest) (*nodev1.InspectNetworkResponse, error) {
	if name := s.predefinedName(req.GetNetwork()); name != "" {
		return &nodev1.InspectNetworkResponse{Network: s.predefinedInfo(name)}, nil
	}
	n, err := s.networks.Find(req.GetNetwork())
	if err != nil {
		return nil, personal(err)
	}
	return &nodev1.InspectNetworkResponse{Network: s.networkInfo(n)}, nil
}
