package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// Search finds repositories by a word.
func (s *registries) Search(ctx context.Context, req *nodev1.SearchRequest) (*nodev1.SearchResponse, error) {
	if req.GetLimit() < 0 || req.GetLimit() > 100 {
		return nil, failf(errdefs.ErrInvalidArgument, "limit %d is outside the range of [1, 100]", req.GetLimit())
	}
	found, err := s.images.Search(ctx, req.GetTerm(), int(req.GetLimit()), authOf(req.GetAuth()))
	if err != nil {
		return nil, err
	}
	resp := &nodev1.SearchResponse{}
	for _, f := range found {
		resp.Repositories = append(resp.Repositories, &nodev1.FoundRepository{
			Name: f.Name, Description: f.Description, Stars: f.Stars, Official: f.Official, Automated: f.Automated,
		})
	}
	return resp, nil
}
