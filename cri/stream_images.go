package cri

import (
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StreamImages is ListImages in parts.
func (s *Server) StreamImages(req *runtime.StreamImagesRequest, out grpc.ServerStreamingServer[runtime.StreamImagesResponse]) error {
	items, err := s.imageItems(out.Context(), req.GetFilter())
	if err != nil {
		return err
	}
	return sendChunks(items, func(chunk []*runtime.Image) error {
		return out.Send(&runtime.StreamImagesResponse{Images: chunk})
	})
}
