package nodeapi

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Update changes limits and the restart policy of a container. The limits are
// changed first: they may be refused.
func (s *containers) Update(ctx context.Context, req *nodev1.UpdateRequest) (*nodev1.UpdateResponse, error) {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	if c.Owner != sandbox.OwnerNodectl {
		return nil, failf(errdefs.ErrFailedPrecondition, "container %s is kubelet's and cannot be updated", c.ID)
	}
	before := s.specOf(c)
	if before.GetAutoRemove() && req.GetRestart() != nil && req.GetRestart().GetName() != restartNo {
		return nil, failf(errdefs.ErrInvalidArgument,
			"Cannot update container %s: Restart policy cannot be updated because AutoRemove is enabled for the container", c.ID)
	}
	warnings := s.discardLimits(req.GetResources())
	if err := s.settleSwapUpdate(before.GetResources(), req.GetResources()); err != nil {
		return nil, fmt.Errorf("Cannot update container %s: %w", c.ID, err)
	}
	spec := applyUpdate(before, req)
	for _, check := range []func(*nodev1.ContainerSpec) error{validateResources, s.validateHost, validateRestart, validateExtra} {
		if err := check(spec); err != nil {
			return nil, err
		}
	}
	if req.GetResources() != nil {
		extra, err := s.extraOf(&nodev1.ContainerSpec{Resources: req.GetResources()})
		if err != nil {
			return nil, err
		}
		if err := s.sandboxes.UpdateContainerLimits(ctx, c.ID, resources(req.GetResources()), extra); err != nil {
			return nil, fmt.Errorf("Cannot update container %s: %w", c.ID, err)
		}
	}
	if err := s.recordUpdate(c, req); err != nil {
		return nil, err
	}
	if req.GetRestart().GetName() == restartNo {
		s.cancelRestart(c.ID)
	}
	s.emitContainer("update", c)
	return &nodev1.UpdateResponse{Warnings: warnings}, nil
}

// recordUpdate keeps what was changed, on top of earlier changes.
func (s *Server) recordUpdate(c sandbox.Container, req *nodev1.UpdateRequest) error {
	var failed error
	err := s.changeRun(c, func(r *runRecord) {
		all := &nodev1.UpdateRequest{}
		if len(r.Update) > 0 {
			failed = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(r.Update, all)
		}
		change := proto.CloneOf(req)
		change.Container = ""
		if change.GetRestart() != nil {
			all.Restart, r.BootID = nil, s.bootID
		}
		proto.Merge(all, change)
		data, err := protojson.Marshal(all)
		if err != nil {
			failed = err
		}
		r.Update = json.RawMessage(data)
	})
	s.mu.Lock()
	delete(s.specs, c.PodID)
	s.mu.Unlock()
	if err == nil {
		err = failed
	}
	return err
}
