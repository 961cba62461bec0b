package nodeapi

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
)

// registries is the part of the node API that is about registries.
type registries struct {
	nodev1.UnimplementedRegistriesServer
	*Server
}

// Pulls tells of the transfers under way, the oldest first.
func (s *registries) Pulls(context.Context, *nodev1.PullsRequest) (*nodev1.PullsResponse, error) {
	resp := &nodev1.PullsResponse{}
	for _, p := range s.images.Pulls() {
		m := &nodev1.PullUnderWay{
			Ref: p.Ref, Platform: p.Platform, StartedAt: timestamp(p.StartedAt), Waiters: int64(p.Waiters),
		}
		for _, l := range p.Layers {
			m.Layers = append(m.Layers, progressMessage(l))
		}
		resp.Pulls = append(resp.Pulls, m)
	}
	return resp, nil
}

func progressMessage(p imageservice.Progress) *nodev1.PullProgress {
	return &nodev1.PullProgress{Digest: p.Digest, Status: p.Status, Current: p.Current, Total: p.Total}
}
