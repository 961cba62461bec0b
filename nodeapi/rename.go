package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
)

// Rename gives one of nodectl's containers another name.
func (s *containers) Rename(ctx context.Context, req *nodev1.RenameRequest) (*nodev1.RenameResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	old, name := c.Config.GetMetadata().GetName(), req.GetName()
	switch {
	case c.Owner != sandbox.OwnerNodectl:
		return nil, failf(errdefs.ErrFailedPrecondition, "container %s is kubelet's and cannot be renamed", c.ID)
	case name == "":
		return nil, failf(errdefs.ErrInvalidArgument, "Neither old nor new names may be empty")
	case name == old:
		return nil, failf(errdefs.ErrInvalidArgument, "Renaming a container with the same name as its current name")
	}
	if _, err := s.reserveName(name); err != nil {
		if errdefs.IsAlreadyExists(err) {
			return nil, failf(errdefs.ErrAlreadyExists, "Error when allocating new name: %v", err)
		}
		return nil, err
	}
	defer s.releaseName(name)
	if err := s.sandboxes.RenameContainer(ctx, c.ID, name); err != nil {
		return nil, err
	}
	if c, err = s.sandboxes.Container(c.ID); err == nil {
		s.emitContainer("rename", c, "oldName", "/"+old)
	}
	return &nodev1.RenameResponse{}, nil
}
