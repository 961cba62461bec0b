package nodeapi

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
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
	var changes []layer.Change
	err = layer.Changes(ctx, upper, lowers, func(change layer.Change) error {
		changes = append(changes, change)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("changes of container %s: %w", c.ID, err)
	}
	resp := &nodev1.ChangesResponse{}
	for _, change := range withoutMountPoints(changes) {
		resp.Changes = append(resp.Changes, &nodev1.Change{Kind: changeKinds[change.Kind], Path: change.Path})
	}
	return resp, nil
}

// mountPoints are what every container has something of ours mounted on, so
// that nobody in it can have made them.
var mountPoints = []string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}

// withoutMountPoints leaves out what was made to mount our files on where the
// image lacks them, and the folder that was changed by nothing else.
func withoutMountPoints(changes []layer.Change) []layer.Change {
	folders := map[string]bool{}
	rest := slices.DeleteFunc(changes, func(c layer.Change) bool {
		ours := c.Kind == layer.Added && slices.Contains(mountPoints, c.Path)
		if ours {
			folders[path.Dir(c.Path)] = true
		}
		return ours
	})
	var kept []layer.Change
	for i, c := range rest {
		// What is in a folder follows it.
		emptied := folders[c.Path] && (i+1 == len(rest) || !strings.HasPrefix(rest[i+1].Path, c.Path+"/"))
		if !emptied {
			kept = append(kept, c)
		}
	}
	return kept
}

// layerDirs are the folders of a container's own layer and of the image's
// layers below it, the uppermost first.
func (s *Server) layerDirs(c sandbox.Container) (upper string, lowers []string, err error) {
	if c.Folder != "" {
		return "", nil, failf(errdefs.ErrFailedPrecondition,
			"container %s has no image to compare with: its root filesystem is %s", c.ID, c.Folder)
	}
	dirs, err := s.layers.LayerDirs(c.SnapshotKey)
	if err != nil {
		return "", nil, err
	}
	return dirs[0], dirs[1:], nil
}
