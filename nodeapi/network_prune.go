package nodeapi

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/network/userdefined"
	"github.com/sirupsen/logrus"
)

// Prune removes the networks that no container is on, and goes on past those
// that somebody joins meanwhile.
func (s *peopleNetworks) Prune(ctx context.Context, req *nodev1.PruneNetworksRequest) (*nodev1.PruneNetworksResponse, error) {
	resp := &nodev1.PruneNetworksResponse{}
	for _, n := range s.networks.Networks() {
		if len(s.networks.Members(n.ID)) > 0 || !pruned(n, req) {
			continue
		}
		if _, err := s.networks.Remove(ctx, n.ID); err != nil {
			logrus.WithError(err).WithField("network", n.Name).Warn("network is not pruned")
			continue
		}
		s.emitNetwork("destroy", n)
		resp.Removed = append(resp.Removed, n.Name)
	}
	s.emitPrune(eventNetwork, 0)
	return resp, nil
}

// pruned says whether a network is one of those asked for.
func pruned(n userdefined.Network, req *nodev1.PruneNetworksRequest) bool {
	if until := req.GetUntil(); until != nil && n.CreatedAt.After(until.AsTime()) {
		return false
	}
	return hasLabels(n.Labels, req.GetLabels()) && !hasAnyLabel(n.Labels, req.GetLabelsNot())
}
