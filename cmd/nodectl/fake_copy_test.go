package main

import (
	"bytes"
	"io"
	"os"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/filetree"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// openFiles opens the files that the fake's containers have, which lie beside
// its socket.
func (f *fakeAgent) openFiles(name string) (*os.File, error) {
	if _, err := f.inspect(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(f.files+"/etc/app", 0o755); err != nil {
		return nil, err
	}
	if _, err := os.Stat(f.files + "/etc/app/conf"); err != nil {
		if err := os.WriteFile(f.files+"/etc/app/conf", []byte("setting\n"), 0o644); err != nil {
			return nil, err
		}
		_ = os.Symlink("app/conf", f.files+"/etc/link")
	}
	return os.Open(f.files)
}

func (s fakeContainers) CopyFrom(r *nodev1.CopyFromRequest, stream nodev1.Containers_CopyFromServer) error {
	root, err := s.f.openFiles(r.GetContainer())
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := filetree.Stat(root, r.GetPath(), r.GetFollow())
	if err != nil {
		return status.Errorf(codes.NotFound, "Could not find the file %s in container %s", r.GetPath(), r.GetContainer())
	}
	stat := &nodev1.PathStat{Name: info.Name, Mode: uint32(info.Mode), Target: info.Target}
	if err := stream.Send(&nodev1.CopyFromResponse{Message: &nodev1.CopyFromResponse_Stat{Stat: stat}}); err != nil || r.GetStatOnly() {
		return err
	}
	var b bytes.Buffer
	if err := filetree.Read(stream.Context(), &b, root, r.GetPath(), filetree.ReadOptions{Follow: r.GetFollow()}); err != nil {
		return err
	}
	return stream.Send(&nodev1.CopyFromResponse{Message: &nodev1.CopyFromResponse_Data{Data: b.Bytes()}})
}

func (s fakeContainers) CopyTo(stream nodev1.Containers_CopyToServer) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	start := m.GetStart()
	root, err := s.f.openFiles(start.GetContainer())
	if err != nil {
		return err
	}
	defer root.Close()
	var b bytes.Buffer
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		b.Write(m.GetData())
	}
	if err := filetree.Write(stream.Context(), &b, root, start.GetPath(), filetree.WriteOptions{}); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return stream.SendAndClose(&nodev1.CopyToResponse{})
}
