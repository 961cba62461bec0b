package nodeapi

import (
	"context"
	"time"

	"google.golang.org/grpc"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
)

// store is the part of the node API that is about what is stored.
type store struct {
	nodev1.UnimplementedStoreServer
	*Server
}

// verifyEvery is how often a client is told how far verifying is.
const verifyEvery = 200 * time.Millisecond

// Verify reads all that is stored and tells what is wrong.
func (s *store) Verify(req *nodev1.VerifyStoreRequest, stream grpc.ServerStreamingServer[nodev1.VerifyStoreResponse]) error {
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	var told time.Time
	sum, err := s.images.Verify(ctx, imageservice.VerifyOptions{
		Repair: req.GetRepair(),
		Found: func(f imageservice.Finding) error {
			return stream.Send(&nodev1.VerifyStoreResponse{Message: &nodev1.VerifyStoreResponse_Finding{Finding: &nodev1.StoreFinding{
				Kind: f.Kind, Name: f.Name, Snapshotter: f.Snapshotter, Path: f.Path, ImageIds: f.Images,
				Problem: f.Problem, Repaired: f.Repaired, RepairError: f.RepairError,
			}}})
		},
		Progress: func(done, total int64) error {
			if time.Since(told) < verifyEvery {
				return nil
			}
			told = time.Now()
			return stream.Send(&nodev1.VerifyStoreResponse{Message: &nodev1.VerifyStoreResponse_Progress{
				Progress: &nodev1.VerifyProgress{DoneBytes: done, TotalBytes: total},
			}})
		},
	})
	if err != nil {
		return err
	}
	return stream.Send(&nodev1.VerifyStoreResponse{Message: &nodev1.VerifyStoreResponse_Summary{Summary: &nodev1.VerifySummary{
		Blobs: int64(sum.Blobs), Layers: int64(sum.Layers), Bytes: sum.Bytes, Unchecked: int64(sum.Unchecked),
	}}})
}

// DiskUsage tells what images take.
func (s *store) DiskUsage(ctx context.Context, _ *nodev1.DiskUsageRequest) (*nodev1.DiskUsageResponse, error) {
	d, err := s.images.DiskUsage(ctx)
	if err != nil {
		return nil, err
	}
	resp := &nodev1.DiskUsageResponse{
		Bytes: d.Bytes, LayerBytes: d.Layers, BlobBytes: d.Blobs, UnneededBytes: d.Unneeded, ReclaimableBytes: d.Reclaimable,
	}
	for _, img := range d.Images {
		resp.Images = append(resp.Images, &nodev1.ImageDiskUsage{
			Id: img.ID, Tags: img.Tags, ExclusiveBytes: img.Exclusive, SharedBytes: img.Shared, InUse: img.InUse,
		})
	}
	return resp, nil
}
