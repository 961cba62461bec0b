package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
	"google.golang.org/grpc"
)

// Push sends an image to the registry of its tag and tells how far it is.
func (s *images) Push(req *nodev1.PushRequest, stream grpc.ServerStreamingServer[nodev1.PushResponse]) error {
	named, err := reference.ParseNormalizedNamed(req.GetRef())
	if err != nil {
		return failf(errdefs.ErrInvalidArgument, "%v", err)
	}
	if _, ok := named.(reference.Digested); ok {
		return failf(errdefs.ErrInvalidArgument, "cannot push a digest reference")
	}
	if err := checkPlatform(req.GetPlatform()); err != nil {
		return err
	}
	ref := reference.TagNameOnly(named).String()
	_, err = s.images.Image(stream.Context(), ref)
	if errdefs.IsNotFound(err) {
		return failf(errdefs.ErrNotFound, "An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	if err != nil {
		return err
	}
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	var result imageservice.PushResult
	err = s.tellProgress(func(tell func(imageservice.Progress)) (err error) {
		result, err = s.images.Push(ctx, imageservice.PushRequest{
			Ref: ref, Platform: req.GetPlatform(), Auth: authOf(req.GetAuth()), Progress: tell,
		})
		return err
	}, func(p *nodev1.PullProgress) error {
		return stream.Send(&nodev1.PushResponse{Message: &nodev1.PushResponse_Progress{Progress: p}})
	})
	if err != nil {
		return err
	}
	return stream.Send(&nodev1.PushResponse{Message: &nodev1.PushResponse_Result{Result: &nodev1.PushResult{
		Digest: result.Digest, Size: result.Size,
	}}})
}

// checkPlatform refuses a platform that is none; none at all is fine.
func checkPlatform(platform string) error {
	if platform == "" {
		return nil
	}
	if _, err := platforms.Parse(platform); err != nil {
		return failf(errdefs.ErrInvalidArgument, "invalid platform %q", platform)
	}
	return nil
}

// tellProgress does something in the background and sends what it tells.
func (s *Server) tellProgress(do func(tell func(imageservice.Progress)) error, send func(*nodev1.PullProgress) error) error {
	news := newNews()
	done := make(chan error, 1)
	if !s.goBackground(func(context.Context) { done <- do(news.put) }) {
		return failf(errdefs.ErrUnavailable, "the agent is stopping")
	}
	for {
		select {
		case <-news.ready:
			if err := news.send(send); err != nil {
				return err
			}
		case err := <-done:
			if err != nil {
				return err
			}
			return news.send(send)
		}
	}
}
