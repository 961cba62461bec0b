package nodeapi

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
)

// List gives all images of the node, newest first.
func (s *images) List(ctx context.Context, _ *nodev1.ListImagesRequest) (*nodev1.ListImagesResponse, error) {
	all, err := s.images.Images(ctx)
	if err != nil {
		return nil, err
	}
	users := map[string]int64{}
	for _, c := range s.sandboxes.Containers() {
		users[c.ImageID]++
	}
	resp := &nodev1.ListImagesResponse{}
	for _, img := range all {
		resp.Images = append(resp.Images, imageMessage(img, users[img.ID]))
	}
	slices.SortFunc(resp.Images, func(a, b *nodev1.Image) int {
		if order := b.GetCreatedAt().AsTime().Compare(a.GetCreatedAt().AsTime()); order != 0 {
			return order
		}
		return strings.Compare(a.GetId(), b.GetId())
	})
	return resp, nil
}

// imageMessage is an image as the node API shows it.
func imageMessage(img imageservice.Image, users int64) *nodev1.Image {
	m := &nodev1.Image{
		Id: img.ID, Tags: img.Tags, Digests: img.Digests, Size: img.Size, ContentSize: img.ContentSize,
		PulledAt: timestamp(img.PulledAt), Containers: users, Pinned: img.Pinned,
	}
	m.Manifest = img.Manifest
	if img.Config != nil {
		m.Labels = img.Config.Config.Labels
		m.Platform = platforms.Format(img.Config.Platform)
		if img.Config.Created != nil {
			m.CreatedAt = timestamp(*img.Config.Created)
		}
	}
	return m
}

// Inspect tells everything about one image.
func (s *images) Inspect(ctx context.Context, req *nodev1.InspectImageRequest) (*nodev1.InspectImageResponse, error) {
	img, err := s.images.Image(ctx, req.GetImage())
	if errdefs.IsNotFound(err) {
		return nil, noSuchImage(req.GetImage())
	}
	if err != nil {
		return nil, referenceError(req.GetImage(), err)
	}
	if err := hasPlatform(img, req.GetImage(), req.GetPlatform()); err != nil {
		return nil, err
	}
	config, err := s.images.Configuration(ctx, img.ID)
	if err != nil {
		return nil, err
	}
	manifest, err := s.images.ManifestOf(ctx, img.ID)
	if err != nil {
		return nil, err
	}
	users := int64(0)
	for _, c := range s.sandboxes.Containers() {
		if c.ImageID == img.ID {
			users++
		}
	}
	return &nodev1.InspectImageResponse{
		Image: imageMessage(img, users), Config: config, Manifest: img.Manifest, ChainId: img.ChainID,
		MediaType: manifest.MediaType, ManifestSize: manifest.Size,
	}, nil
}

// Tag gives an image a further name.
func (s *images) Tag(ctx context.Context, req *nodev1.TagImageRequest) (*nodev1.TagImageResponse, error) {
	target, err := reference.ParseNormalizedNamed(req.GetTarget())
	if err != nil {
		return nil, failf(errdefs.ErrInvalidArgument, "error parsing reference: %q is not a valid repository/tag: %v", req.GetTarget(), err)
	}
	if _, ok := target.(reference.Digested); ok {
		return nil, failf(errdefs.ErrInvalidArgument, "refusing to create a tag with a digest reference")
	}
	err = s.images.Tag(ctx, req.GetSource(), reference.TagNameOnly(target).String())
	if errdefs.IsNotFound(err) {
		return nil, noSuchImage(req.GetSource())
	}
	if err != nil {
		return nil, referenceError(req.GetSource(), err)
	}
	return &nodev1.TagImageResponse{}, nil
}
