package cri

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListImages tells of all images, or of the one that a filter names by any
// reference.
func (s *Server) ListImages(ctx context.Context, req *runtime.ListImagesRequest) (*runtime.ListImagesResponse, error) {
	items, err := s.imageItems(ctx, req.GetFilter())
	if err != nil {
		return nil, err
	}
	return &runtime.ListImagesResponse{Images: items}, nil
}

func (s *Server) imageItems(ctx context.Context, filter *runtime.ImageFilter) ([]*runtime.Image, error) {
	images, err := s.findImages(ctx, filter.GetImage().GetImage())
	if err != nil {
		return nil, err
	}
	items := make([]*runtime.Image, len(images))
	for i := range images {
		items[i] = imageItem(&images[i])
	}
	return items, nil
}

// findImages returns the image of a reference, or all when it is empty.
func (s *Server) findImages(ctx context.Context, ref string) ([]imageservice.Image, error) {
	if ref == "" {
		return s.images.Images(ctx)
	}
	img, err := s.images.Image(ctx, ref)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, ofImage(err)
	}
	return []imageservice.Image{img}, nil
}
