package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// Tags lists the tags of a repository.
func (s *registries) Tags(ctx context.Context, req *nodev1.TagsRequest) (*nodev1.TagsResponse, error) {
	named, err := reference.ParseNormalizedNamed(req.GetRepository())
	if err != nil || !reference.IsNameOnly(named) {
		return nil, failf(errdefs.ErrInvalidArgument, "invalid reference format: %q", req.GetRepository())
	}
	tags, err := s.images.Tags(ctx, named.Name(), authOf(req.GetAuth()))
	if err != nil {
		return nil, err
	}
	return &nodev1.TagsResponse{Tags: tags}, nil
}
