package nodeapi

import (
	"io"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice/pack"
	"google.golang.org/grpc"
)

// Export gives a container's root filesystem as it sees it, running or not.
// Nothing of the container is executed.
func (s *containers) Export(req *nodev1.ExportRequest, stream grpc.ServerStreamingServer[nodev1.ExportResponse]) error {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return err
	}
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	root, err := s.sandboxes.OpenRootfs(ctx, c.ID)
	if err != nil {
		return err
	}
	defer root.Close()
	err = sendChunks(func(data []byte) error {
		return stream.Send(&nodev1.ExportResponse{Data: data})
	}, func(w io.Writer) error {
		return pack.Tree(ctx, w, root, pack.Options{Owner: s.ownersOf(c)})
	})
	if err != nil {
		return err
	}
	s.emitContainer("export", c)
	return nil
}
