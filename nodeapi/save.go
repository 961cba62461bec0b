package nodeapi

import (
	"io"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
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
	if errdefs.IsNotFound(err) && len(req.GetImages()) == 1 && req.GetPlatform() == "" {
		return noSuchImage(req.GetImages()[0])
	}
	return err
}
