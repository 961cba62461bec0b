package nodeapi

import (
	"context"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
)

// Prune removes nodectl's containers that do not run. One that is started or
// removed meanwhile is passed over.
func (s *containers) Prune(ctx context.Context, req *nodev1.PruneContainersRequest) (*nodev1.PruneContainersResponse, error) {
	resp := &nodev1.PruneContainersResponse{}
	for _, c := range s.sandboxes.Containers() {
		// As it is now: the removals before it took their time.
		c, err := s.sandboxes.Container(c.ID)
		if err != nil || !s.prunable(c, req) {
			continue
		}
		size, _, err := s.layers.ChainUsage(ctx, c.SnapshotKey)
		if err != nil {
			size = 0 // it is told, and no reason to keep the container
		}
		if err := s.remove(ctx, c, removal{}); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			logrus.WithError(err).WithField("container", c.ID).Warn("container is not pruned")
			continue
		}
		resp.Ids = append(resp.Ids, c.ID)
		resp.ReclaimedBytes += size
	}
	s.emitPrune(eventContainer, resp.GetReclaimedBytes())
	return resp, nil
}

// prunable says whether a container is one of those asked for.
func (s *Server) prunable(c sandbox.Container, req *nodev1.PruneContainersRequest) bool {
	if c.Owner != sandbox.OwnerNodectl || s.restarting(c) || (c.State != sandbox.ContainerCreated && c.State != sandbox.ContainerExited) {
		return false
	}
	if until := req.GetUntil(); until != nil && c.CreatedAt.After(until.AsTime()) {
		return false
	}
	return hasLabels(c.Config.GetLabels(), req.GetLabels()) && !hasAnyLabel(c.Config.GetLabels(), req.GetWithoutLabels())
}

// hasLabels says whether labels have all of wanted, NAME or NAME=VALUE.
func hasLabels(labels map[string]string, wanted []string) bool {
	for _, want := range wanted {
		if !hasAnyLabel(labels, []string{want}) {
			return false
		}
	}
	return true
}

// hasAnyLabel says whether labels have one of wanted.
func hasAnyLabel(labels map[string]string, wanted []string) bool {
	for _, want := range wanted {
		name, value, exact := strings.Cut(want, "=")
		if have, ok := labels[name]; ok && (!exact || have == value) {
			return true
		}
	}
	return false
}
