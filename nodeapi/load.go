package nodeapi

import (
	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/grpc"
)

// Load takes the images of an archive.
func (s *images) Load(stream grpc.ClientStreamingServer[nodev1.LoadRequest, nodev1.LoadResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return brokenOff(err)
	}
	options := first.GetOptions()
	if options == nil {
		return failf(errdefs.ErrInvalidArgument, "the first message must be options")
	}
	if err := checkPlatform(options.GetPlatform()); err != nil {
		return err
	}
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	loaded, err := s.images.Load(ctx, &chunkReader{receive: func() ([]byte, error) {
		m, err := stream.Recv()
		return m.GetData(), brokenOff(err)
	}}, options.GetPlatform())
	if err != nil {
		return err
	}
	resp := &nodev1.LoadResponse{}
	for _, one := range loaded {
		resp.Images = append(resp.Images, &nodev1.LoadedImage{Id: one.Image.ID, Tags: one.Tags})
	}
	return stream.SendAndClose(resp)
}
