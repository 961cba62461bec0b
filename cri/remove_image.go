package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RemoveImage removes an image with all its tags and digests, whichever of them
// is given. One that is unknown is removed.
func (s *Server) RemoveImage(ctx context.Context, req *runtime.RemoveImageRequest) (*runtime.RemoveImageResponse, error) {
	ref := req.GetImage().GetImage()
	if ref == "" {
		return nil, missing("image.image")
	}
	if err := s.images.Remove(ctx, ref); err != nil {
		return nil, ofImage(err)
	}
	return &runtime.RemoveImageResponse{}, nil
}
