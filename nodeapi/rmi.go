package nodeapi

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
)

// Remove takes a reference away, and the image with its last one. An image
// that a container uses keeps its last reference unless forced, and stays
// whole under a running one.
func (s *images) Remove(ctx context.Context, req *nodev1.RemoveImageRequest) (*nodev1.RemoveImageResponse, error) {
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
	byID := namesID(img, req.GetImage())
	if err := s.checkUnused(img, req, byID); err != nil {
		return nil, err
	}
	refs := []string{req.GetImage()}
	if byID && len(img.Tags) > 0 {
		refs = slices.Clone(img.Tags)
	}
	resp := &nodev1.RemoveImageResponse{}
	for _, ref := range refs {
		untagged, deleted, err := s.images.Untag(ctx, ref, req.GetForce())
		if err != nil {
			return nil, err
		}
		resp.Untagged = append(resp.Untagged, untagged...)
		resp.Deleted = append(resp.Deleted, deleted...)
	}
	if req.GetForce() && len(resp.Deleted) == 0 {
		if err := s.removeUnnamed(ctx, img, resp); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// removeUnnamed removes an image that has lost its last name by force, unless
// a container of it runs. What others need of it stays until they are gone.
func (s *images) removeUnnamed(ctx context.Context, img imageservice.Image, resp *nodev1.RemoveImageResponse) error {
	left, err := s.images.Image(ctx, img.ID)
	if errdefs.IsNotFound(err) || err == nil && len(left.Tags)+len(left.Digests) > 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range s.sandboxes.Containers() {
		if c.ImageID == img.ID && running(c) {
			return nil
		}
	}
	if err := s.images.Remove(ctx, img.ID); err != nil {
		return err
	}
	resp.Deleted = append(resp.Deleted, img.ID)
	return nil
}

// checkUnused refuses what docker refuses.
func (s *images) checkUnused(img imageservice.Image, req *nodev1.RemoveImageRequest, byID bool) error {
	short := strings.TrimPrefix(img.ID, "sha256:")[:12]
	if byID && !req.GetForce() && repositories(img) > 1 {
		return failf(errdefs.ErrFailedPrecondition,
			"conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short)
	}
	if !byID && (len(img.Tags) > 1 || req.GetForce()) {
		return nil
	}
	for _, c := range s.sandboxes.Containers() {
		switch {
		case c.ImageID != img.ID:
		case !byID:
			return failf(errdefs.ErrFailedPrecondition,
				"conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
				req.GetImage(), c.ID[:12], short)
		case running(c):
			return failf(errdefs.ErrFailedPrecondition,
				"conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", short, c.ID[:12])
		case !req.GetForce():
			return failf(errdefs.ErrFailedPrecondition,
				"conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", short, c.ID[:12])
		}
	}
	return nil
}

// repositories counts the repositories an image has tags in.
func repositories(img imageservice.Image) int {
	names := map[string]bool{}
	for _, tag := range img.Tags {
		if named, err := reference.ParseDockerRef(tag); err == nil {
			names[named.Name()] = true
		}
	}
	return len(names)
}

// namesID says whether a person named the image by its ID or a prefix of it.
func namesID(img imageservice.Image, name string) bool {
	hex := strings.TrimPrefix(img.ID, "sha256:")
	if !strings.HasPrefix(hex, strings.TrimPrefix(name, "sha256:")) {
		return false
	}
	named, err := reference.ParseDockerRef(name)
	return err != nil || !slices.Contains(append(slices.Clone(img.Tags), img.Digests...), named.String())
}
