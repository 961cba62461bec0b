package main

import (
	"context"
	"slices"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fakeVolumes has a volume "data", which web uses, and an anonymous one.
type fakeVolumes struct {
	nodev1.UnimplementedVolumesServer
}

func allVolumes() []*nodev1.Volume {
	at := timestamppb.New(time.Unix(1700000000, 0))
	return []*nodev1.Volume{
		{
			Name: "data", Driver: "local", Labels: map[string]string{"tier": "db", "a": "b"}, Mountpoint: "/volumes/data/_data",
			CreatedAt: at, UsedBy: []string{webID}, Size: 1_500_000, Options: map[string]string{"type": "tmpfs", "o": "size=1m"},
		},
		{Name: newID, Driver: "local", Mountpoint: "/volumes/3/_data", CreatedAt: at, Anonymous: true, Size: 4096},
	}
}

func (fakeVolumes) find(name string) (*nodev1.Volume, error) {
	for _, v := range allVolumes() {
		if v.GetName() == name {
			return v, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "get %s: no such volume", name)
}

func (s fakeVolumes) Create(_ context.Context, req *nodev1.CreateVolumeRequest) (*nodev1.Volume, error) {
	v := &nodev1.Volume{Name: req.GetName(), Driver: req.GetDriver()}
	switch {
	case req.GetDriver() != "local":
		return nil, status.Errorf(codes.NotFound, "error looking up volume plugin %s: plugin %q not found", req.GetDriver(), req.GetDriver())
	case req.GetName() == "":
		v.Name = newID
	case req.GetLabels()["want"] != "" && req.GetOptions()["type"] != "tmpfs":
		return nil, status.Error(codes.InvalidArgument, "wrong options")
	}
	return v, nil
}

func (fakeVolumes) List(context.Context, *nodev1.ListVolumesRequest) (*nodev1.ListVolumesResponse, error) {
	return &nodev1.ListVolumesResponse{Volumes: allVolumes()}, nil
}

func (s fakeVolumes) Inspect(_ context.Context, req *nodev1.InspectVolumeRequest) (*nodev1.Volume, error) {
	return s.find(req.GetName())
}

func (s fakeVolumes) Remove(_ context.Context, req *nodev1.RemoveVolumeRequest) (*nodev1.RemoveVolumeResponse, error) {
	v, err := s.find(req.GetName())
	switch {
	case err != nil && req.GetForce():
	case err != nil:
		return nil, err
	case len(v.GetUsedBy()) > 0:
		return nil, status.Errorf(codes.FailedPrecondition, "remove %s: volume is in use - [%s]", v.GetName(), webID)
	}
	return &nodev1.RemoveVolumeResponse{}, nil
}

func (fakeVolumes) Prune(_ context.Context, req *nodev1.PruneVolumesRequest) (*nodev1.PruneVolumesResponse, error) {
	if slices.Contains(req.GetLabels(), "none") || slices.Contains(req.GetWithoutLabels(), "x=y") {
		return &nodev1.PruneVolumesResponse{}, nil
	}
	names := []string{newID}
	if req.GetAll() {
		names = append(names, "old")
	}
	return &nodev1.PruneVolumesResponse{Names: names, ReclaimedBytes: 4096}, nil
}

// fakeEvents has three events, long ago.
type fakeEvents struct {
	nodev1.UnimplementedEventsServer
}

func (fakeEvents) Watch(req *nodev1.WatchRequest, stream grpc.ServerStreamingServer[nodev1.Event]) error {
	at := timestamppb.New(time.Unix(1700000000, 5))
	web := map[string]string{"name": "web", "image": "busybox:1", "tier": "front"}
	all := []*nodev1.Event{
		{Type: "container", Action: "start", Id: webID, Attributes: web, At: at},
		{Type: "container", Action: "health_status: healthy", Id: webID, Attributes: web, At: at},
		{Type: "volume", Action: "create", Id: "data", Attributes: map[string]string{"driver": "local"}, At: at},
	}
	if req.GetSince() == nil || req.GetUntil() == nil {
		return status.Error(codes.InvalidArgument, "the test would wait")
	}
	for _, e := range all {
		if err := stream.Send(e); err != nil {
			return err
		}
	}
	return nil
}
