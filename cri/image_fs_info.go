package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ImageFsInfo tells what images and writable layers take. Both lie in one
// folder, so both lists have that.
func (s *Server) ImageFsInfo(ctx context.Context, _ *runtime.ImageFsInfoRequest) (*runtime.ImageFsInfoResponse, error) {
	usage, err := s.images.FilesystemUsage(ctx)
	if err != nil {
		return nil, err
	}
	return &runtime.ImageFsInfoResponse{
		ImageFilesystems:     []*runtime.FilesystemUsage{filesystem(usage)},
		ContainerFilesystems: []*runtime.FilesystemUsage{filesystem(usage)},
	}, nil
}
