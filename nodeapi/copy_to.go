package nodeapi

import (
	"errors"
	"io"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/filetree"
	"google.golang.org/grpc"
)

// CopyTo unpacks a tar into a folder of a container.
func (s *containers) CopyTo(stream grpc.ClientStreamingServer[nodev1.CopyToRequest, nodev1.CopyToResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	req := first.GetStart()
	if req == nil {
		return failf(errdefs.ErrInvalidArgument, "copy: the first message must be start")
	}
	c, err := s.find(req.GetContainer())
	if err != nil {
		return err
	}
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	in := &chunkReader{receive: func() ([]byte, error) {
		m, err := stream.Recv()
		return m.GetData(), err
	}}
	err = s.withFiles(ctx, c, req.GetPath(), true, func(p place) error {
		options := filetree.WriteOptions{Owners: req.GetOwn()}
		if p.mapped {
			options.Owner = s.hostOwnersOf(c)
		}
		return filetree.Write(ctx, in, p.root, p.path, options)
	})
	if errors.Is(err, filetree.ErrKind) {
		return failf(errdefs.ErrInvalidArgument, "%v", err)
	}
	if err != nil {
		return copyError(c, req.GetPath(), err)
	}
	// What follows the end of the tar is padding.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return brokenOff(err)
	}
	s.emitContainer("extract-to-dir", c)
	return stream.SendAndClose(&nodev1.CopyToResponse{})
}
