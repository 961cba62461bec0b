package main

import (
	"google.golang.org/grpc"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// fakeStore has a damaged blob, and a damaged file that cannot be repaired
// unless repair was asked for twice.
type fakeStore struct {
	nodev1.UnimplementedStoreServer
}

func (fakeStore) Verify(r *nodev1.VerifyStoreRequest, stream grpc.ServerStreamingServer[nodev1.VerifyStoreResponse]) error {
	found := func(f *nodev1.StoreFinding) error {
		f.Repaired = r.GetRepair()
		return stream.Send(&nodev1.VerifyStoreResponse{Message: &nodev1.VerifyStoreResponse_Finding{Finding: f}})
	}
	err := stream.Send(&nodev1.VerifyStoreResponse{Message: &nodev1.VerifyStoreResponse_Progress{
		Progress: &nodev1.VerifyProgress{DoneBytes: 10, TotalBytes: 100},
	}})
	if err != nil {
		return err
	}
	if err := found(&nodev1.StoreFinding{Kind: "blob", Name: "sha256:1111", Problem: "its content has another digest"}); err != nil {
		return err
	}
	err = found(&nodev1.StoreFinding{
		Kind: "layer", Name: "sha256:2222", Path: "bin/\x1b[2Jsh", ImageIds: []string{"sha256:3333"}, Problem: "the file is damaged or lost",
		RepairError: map[bool]string{false: "the registry does not answer"}[r.GetRepair()],
	})
	if err != nil {
		return err
	}
	return stream.Send(&nodev1.VerifyStoreResponse{Message: &nodev1.VerifyStoreResponse_Summary{
		Summary: &nodev1.VerifySummary{Blobs: 2, Layers: 3, Bytes: 1234567, Unchecked: 1},
	}})
}
