package cri

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ImageStatus tells of an image by ID, prefix of it, tag or digest. A missing
// one is no error but an answer without image.
func (s *Server) ImageStatus(ctx context.Context, req *runtime.ImageStatusRequest) (*runtime.ImageStatusResponse, error) {
	ref := req.GetImage().GetImage()
	if ref == "" {
		return nil, missing("image.image")
	}
	img, err := s.images.Image(ctx, ref)
	if errdefs.IsNotFound(err) {
		return &runtime.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, ofImage(err)
	}
	resp := &runtime.ImageStatusResponse{Image: imageItem(&img)}
	if req.GetVerbose() {
		if resp.Info, err = imageInfo(&img); err != nil {
			return nil, fmt.Errorf("get status of image %s: %w", img.ID, err)
		}
	}
	return resp, nil
}

// imageInfo is what the verbose status adds under "info".
func imageInfo(img *imageservice.Image) (map[string]string, error) {
	return verbose("info", struct {
		ChainID     string         `json:"chainID"`
		Manifest    string         `json:"manifest"`
		ContentSize int64          `json:"contentSize"`
		PulledAt    int64          `json:"pulledAt"`
		ImageSpec   *ocispec.Image `json:"imageSpec"`
	}{img.ChainID, img.Manifest, img.ContentSize, nanos(img.PulledAt), img.Config})
}
