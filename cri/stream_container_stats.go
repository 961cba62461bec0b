package cri

import (
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StreamContainerStats is ListContainerStats in parts.
func (s *Server) StreamContainerStats(req *runtime.StreamContainerStatsRequest, out grpc.ServerStreamingServer[runtime.StreamContainerStatsResponse]) error {
	items, err := s.containerStats(out.Context(), req.GetFilter())
	if err != nil {
		return err
	}
	return sendChunks(items, func(chunk []*runtime.ContainerStats) error {
		return out.Send(&runtime.StreamContainerStatsResponse{ContainerStats: chunk})
	})
}
