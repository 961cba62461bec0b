package nodeapi

import (
	"cmp"
	"context"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
	"google.golang.org/grpc"
)

// importStream is the server's side of an Import call.
type importStream = grpc.ClientStreamingServer[nodev1.ImportRequest, nodev1.ImportResponse]

// Import makes an image of the tar of a root filesystem.
func (s *images) Import(stream importStream) error {
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
	if err := checkNewName(options.GetRef()); err != nil {
		return err
	}
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	img, err := s.importFrom(ctx, options, stream)
	if err != nil {
		return changeError(err)
	}
	return stream.SendAndClose(&nodev1.ImportResponse{Id: img.ID})
}

func (s *images) importFrom(ctx context.Context, options *nodev1.ImportOptions, stream importStream) (imageservice.Image, error) {
	req := imageservice.ImportRequest{
		Ref: options.GetRef(), Changes: options.GetChanges(), Platform: options.GetPlatform(),
		Comment: cmp.Or(options.GetMessage(), "Imported from "+cmp.Or(options.GetUrl(), "-")),
	}
	if options.GetUrl() != "" {
		return s.images.ImportURL(ctx, options.GetUrl(), req)
	}
	return s.images.ImportRoot(ctx, &chunkReader{receive: func() ([]byte, error) {
		m, err := stream.Recv()
		return m.GetData(), brokenOff(err)
	}}, req)
}
