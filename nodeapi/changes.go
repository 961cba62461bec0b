package nodeapi

import (
	"context"
	"fmt"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/nodeapi/layer"
	"github.com/nodeagent/nodeagent/sandbox"
)

// changeKinds are the API's words for those of package layer.
var changeKinds = map[layer.Kind]nodev1.Change_Kind{
	layer.Added: nodev1.Change_ADDED, layer.Modified: nodev1.Change_MODIFIED, layer.Deleted: nodev1.Change_DELETED,
}

// Changes tells how a container's own layer differs from its image.
func (s *containers) Changes(ctx context.Context, req *nodev1.ChangesRequest) (*nodev1.ChangesResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	upper, lowers, err := s.layerDirs(c)
	if err != nil {
		return nil, err
	}
	resp := &nodev1.ChangesResponse{}
	err = layer.Changes(ctx, upper, lowers, func(change layer.Change) error {
		resp.Changes = append(resp.Changes, &nodev1.Change{Kind: changeKinds[change.Kind], Path: change.Path})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", c.ID, err)
	}
	return resp, nil
}

// layerDirs are the folders of a container's own layer and of the image's
// layers below it, the uppermost first.
func (s *Server) layerDirs(c sandbox.Container) (upper string, lowers []string, err error) {
	dirs, err := s.layers.LayerDirs(c.SnapshotKey)
	if err != nil {
		return "", nil, err
	}
	return dirs[0], dirs[1:], nil
}
