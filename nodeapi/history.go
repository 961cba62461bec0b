package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
)

// History tells how an image came about.
func (s *images) History(ctx context.Context, req *nodev1.HistoryRequest) (*nodev1.HistoryResponse, error) {
	img, steps, err := s.images.History(ctx, req.GetImage())
	if errdefs.IsNotFound(err) {
		return nil, noSuchImage(req.GetImage())
	}
	if err != nil {
		return nil, referenceError(req.GetImage(), err)
	}
	if err := hasPlatform(img, req.GetImage(), req.GetPlatform()); err != nil {
		return nil, err
	}
	resp := &nodev1.HistoryResponse{}
	for i, step := range steps {
		entry := &nodev1.HistoryEntry{CreatedBy: step.CreatedBy, Comment: step.Comment, Size: step.Size}
		if !step.Created.IsZero() {
			entry.CreatedAt = timestamp(step.Created)
		}
		if i == 0 {
			entry.Id, entry.Tags = img.ID, img.Tags
		}
		resp.Entries = append(resp.Entries, entry)
	}
	return resp, nil
}

// hasPlatform refuses an image of another platform than was asked for.
func hasPlatform(img imageservice.Image, ref, platform string) error {
	if platform == "" || img.Config == nil {
		return nil
	}
	if err := checkPlatform(platform); err != nil {
		return err
	}
	if want, err := platforms.Parse(platform); err == nil && !platforms.Only(want).Match(img.Config.Platform) {
		return failf(errdefs.ErrNotFound, "image with reference %s was found but does not provide the specified platform (%s)", ref, platform)
	}
	return nil
}
