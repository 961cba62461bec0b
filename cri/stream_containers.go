package cri

import (
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StreamContainers is ListContainers in parts.
func (s *Server) StreamContainers(req *runtime.StreamContainersRequest, out grpc.ServerStreamingServer[runtime.StreamContainersResponse]) error {
	items := s.containerItems(req.GetFilter())
	return sendChunks(items, func(chunk []*runtime.Container) error {
		return out.Send(&runtime.StreamContainersResponse{Containers: chunk})
	})
}
