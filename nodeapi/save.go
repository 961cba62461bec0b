package nodeapi

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
	"google.golang.org/grpc"
)

// Save gives images as one archive.
func (s *images) Save(req *nodev1.SaveRequest, stream grpc.ServerStreamingServer[nodev1.SaveResponse]) error {
	if len(req.GetImages()) == 0 {
		return failf(errdefs.ErrInvalidArgument, "no image is named")
	}
	if err := checkPlatform(req.GetPlatform()); err != nil {
		return err
	}
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	err := sendChunks(func(data []byte) error {
		return stream.Send(&nodev1.SaveResponse{Data: data})
	}, func(w io.Writer) error {
		return s.images.Save(ctx, w, req.GetImages(), req.GetPlatform())
	})
	if errdefs.IsNotFound(err) && req.GetPlatform() == "" {
		return s.missingOf(ctx, req.GetImages(), err)
	}
	return err
}

// missingOf says which of some images there is not; a repository without the
// tag latest may have others.
func (s *images) missingOf(ctx context.Context, refs []string, err error) error {
	all, lerr := s.images.Images(ctx)
	if lerr != nil {
		return err
	}
	for _, ref := range refs {
		if _, err := s.images.Image(ctx, ref); !errdefs.IsNotFound(err) {
			continue
		}
		named, err := reference.ParseNormalizedNamed(ref)
		if err != nil || !slices.ContainsFunc(all, func(img imageservice.Image) bool {
			return slices.ContainsFunc(img.Tags, func(tag string) bool { return strings.HasPrefix(tag, named.Name()+":") })
		}) {
			return noSuchImage(ref)
		}
	}
	return err
}
