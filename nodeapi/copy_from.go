package nodeapi

import (
	"io"
	"os"
	"path"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/filetree"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// CopyFrom gives a path of a container as a tar.
func (s *containers) CopyFrom(req *nodev1.CopyFromRequest, stream grpc.ServerStreamingServer[nodev1.CopyFromResponse]) error {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return err
	}
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	err = s.withFiles(ctx, c, req.GetPath(), false, func(p place) error {
		stat, err := statIn(p.root, p.path, req)
		if err != nil {
			return err
		}
		if err := stream.Send(&nodev1.CopyFromResponse{Message: &nodev1.CopyFromResponse_Stat{Stat: stat}}); err != nil || req.GetStatOnly() {
			return err
		}
		s.emitContainer("archive-path", c)
		return sendChunks(func(data []byte) error {
			return stream.Send(&nodev1.CopyFromResponse{Message: &nodev1.CopyFromResponse_Data{Data: data}})
		}, func(w io.Writer) error {
			options := filetree.ReadOptions{Follow: req.GetFollow(), Name: stat.GetName()}
			if p.mapped {
				options.Owner = s.ownersOf(c)
			}
			return filetree.Read(ctx, w, p.root, p.path, options)
		})
	})
	return copyError(c, req.GetPath(), err)
}

// statIn tells of a path; its name is what was asked for, also where that is
// the root of a mount.
func statIn(root *os.File, name string, req *nodev1.CopyFromRequest) (*nodev1.PathStat, error) {
	info, err := filetree.Stat(root, name, req.GetFollow())
	if err != nil {
		return nil, err
	}
	return &nodev1.PathStat{
		Name: path.Base(path.Clean("/" + req.GetPath())), Size: info.Size, Mode: uint32(info.Mode),
		Modified: timestamppb.New(info.ModTime), Target: info.Target,
	}, nil
}
