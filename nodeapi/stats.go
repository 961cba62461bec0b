package nodeapi

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Stats reads what containers use, in the order asked for; without names all
// of nodectl's. One that has just ended uses nothing.
func (s *containers) Stats(ctx context.Context, req *nodev1.StatsRequest) (*nodev1.StatsResponse, error) {
	var chosen []sandbox.Container
	for _, name := range req.GetContainers() {
		c, err := s.find(name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, c)
	}
	if len(req.GetContainers()) == 0 {
		for _, c := range s.sandboxes.Containers() {
			if c.Owner == sandbox.OwnerNodectl {
				chosen = append(chosen, c)
			}
		}
	}
	limit := uint64(totalMemory())
	resp := &nodev1.StatsResponse{}
	for _, c := range chosen {
		stats, err := s.stats(ctx, c, limit)
		if err != nil {
			return nil, err
		}
		resp.Stats = append(resp.Stats, stats)
	}
	return resp, nil
}

// stats reads one container; limit is the node's memory.
func (s *Server) stats(ctx context.Context, c sandbox.Container, limit uint64) (*nodev1.Stats, error) {
	out := &nodev1.Stats{
		Id: c.ID, Name: c.Config.GetMetadata().GetName(), State: string(c.State), At: timestamppb.New(time.Now()),
	}
	if !running(c) {
		return out, nil
	}
	detail, err := s.sandboxes.ContainerDetail(ctx, c.ID)
	if now, gone := s.sandboxes.Container(c.ID); errdefs.IsNotFound(err) || gone != nil || err != nil && !running(now) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("stats of container %s: %w", c.ID, err)
	}
	group := detail.Cgroup
	out.At = timestamppb.New(group.At)
	if group.CPU != nil {
		out.CpuNanos = group.CPU.UsageNanos
	}
	out.MemoryLimit = limit
	if m := group.Memory; m != nil {
		out.MemoryBytes = m.WorkingSet
		if m.Limit > 0 && (m.Limit < limit || limit == 0) {
			out.MemoryLimit = m.Limit
		}
	}
	if group.Pids != nil {
		out.Pids = group.Pids.Current
	}
	for _, io := range group.IO {
		out.BlockRead += io.ReadBytes
		out.BlockWritten += io.WriteBytes
	}
	// A pod that is being taken down has no interfaces any more.
	if pod, err := s.sandboxes.PodDetail(ctx, c.PodID); err == nil {
		for _, link := range pod.Links {
			out.NetworkReceived += link.Rx.Bytes
			out.NetworkSent += link.Tx.Bytes
		}
	}
	return out, nil
}
