package main

import (
	"context"
	"strings"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fakeNetworks has bridge, host and none, and the networks "front", on which
// web is, and "spare".
type fakeNetworks struct {
	nodev1.UnimplementedNetworksServer
	f *fakeAgent
}

const (
	frontID = "ffffffffffff1111111111111111111111111111111111111111111111111111"
	spareID = "eeeeeeeeeeee1111111111111111111111111111111111111111111111111111"
)

func fakeNetworkList() []*nodev1.NetworkInfo {
	at := timestamppb.New(time.Unix(1700000000, 5e8))
	list := []*nodev1.NetworkInfo{
		{Id: strings.Repeat("a", 64), Name: "bridge", Driver: "bridge", Ipv4: true, Predefined: true, InUse: true},
		{
			Id: frontID, Name: "front", Driver: "bridge", Ipv4: true, Ipv6: true, InUse: true, Labels: map[string]string{"tier": "front"},
			Options: map[string]string{"com.docker.network.driver.mtu": "1400"},
			Subnets: []*nodev1.Subnet{
				{Subnet: "172.28.0.0/16", IpRange: "172.28.5.0/24", Gateway: "172.28.5.254", Auxiliary: map[string]string{"router": "172.28.1.1"}},
				{Subnet: "fd00:28::/64", Gateway: "fd00:28::1"},
			},
			Containers: []*nodev1.NetworkMember{{
				ContainerId: webID, Name: "web", EndpointId: strings.Repeat("9", 64), Mac: "02:42:ac:1c:05:00", Ipv4: "172.28.5.0/16", Ipv6: "fd00:28::2/64",
			}},
		},
		{Id: strings.Repeat("b", 64), Name: "host", Driver: "host", Ipv4: true, Predefined: true, InUse: true},
		{Id: strings.Repeat("c", 64), Name: "none", Driver: "null", Ipv4: true, Predefined: true, InUse: true},
		{Id: spareID, Name: "spare", Driver: "macvlan", Ipv4: true, Internal: true},
	}
	for _, n := range list {
		n.CreatedAt = at
	}
	return list
}

// network finds one as the agent does.
func (fakeNetworks) network(name string) (*nodev1.NetworkInfo, error) {
	for _, n := range fakeNetworkList() {
		if n.GetName() == name || (name != "" && strings.HasPrefix(n.GetId(), name)) {
			return n, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "network %s not found", name)
}

func (s fakeNetworks) Create(_ context.Context, r *nodev1.CreateNetworkRequest) (*nodev1.CreateNetworkResponse, error) {
	if _, err := s.network(r.GetName()); err == nil {
		return nil, status.Errorf(codes.AlreadyExists, "network with name %s already exists", r.GetName())
	}
	s.f.networkCreated = r
	return &nodev1.CreateNetworkResponse{Id: newID}, nil
}

func (fakeNetworks) List(context.Context, *nodev1.ListNetworksRequest) (*nodev1.ListNetworksResponse, error) {
	return &nodev1.ListNetworksResponse{Networks: fakeNetworkList()}, nil
}

// Inspect shows what was created as "made".
func (s fakeNetworks) Inspect(_ context.Context, r *nodev1.InspectNetworkRequest) (*nodev1.InspectNetworkResponse, error) {
	if made := s.f.networkCreated; made != nil && r.GetNetwork() == "made" {
		return &nodev1.InspectNetworkResponse{Network: &nodev1.NetworkInfo{
			Id: newID, Name: made.GetName(), Driver: made.GetDriver(), Subnets: made.GetSubnets(), Options: made.GetOptions(), Labels: made.GetLabels(),
			Internal: made.GetInternal(), Ipv4: !made.GetNoIpv4(), Ipv6: made.GetIpv6(), Attachable: made.GetAttachable(),
		}}, nil
	}
	n, err := s.network(r.GetNetwork())
	return &nodev1.InspectNetworkResponse{Network: n}, err
}

func (s fakeNetworks) Remove(_ context.Context, r *nodev1.RemoveNetworkRequest) (*nodev1.RemoveNetworkResponse, error) {
	n, err := s.network(r.GetNetwork())
	switch {
	case err != nil:
		return nil, err
	case n.GetPredefined():
		return nil, status.Errorf(codes.PermissionDenied, "%s is a pre-defined network and cannot be removed", n.GetName())
	case len(n.GetContainers()) > 0:
		return nil, status.Errorf(codes.PermissionDenied, `error while removing network: network %s has active endpoints (name:"web" id:"999999999999")`, n.GetName())
	}
	return &nodev1.RemoveNetworkResponse{}, nil
}

func (s fakeNetworks) Prune(_ context.Context, r *nodev1.PruneNetworksRequest) (*nodev1.PruneNetworksResponse, error) {
	if len(r.GetLabels()) > 0 || r.GetUntil() != nil {
		return &nodev1.PruneNetworksResponse{}, nil
	}
	return &nodev1.PruneNetworksResponse{Removed: []string{"spare"}}, nil
}

func (s fakeNetworks) Connect(_ context.Context, r *nodev1.ConnectNetworkRequest) (*nodev1.ConnectNetworkResponse, error) {
	if _, err := s.network(r.GetEndpoint().GetNetwork()); err != nil {
		return nil, err
	}
	if _, err := fakeInspect(r.GetContainer()); err != nil {
		return nil, err
	}
	if r.GetEndpoint().GetNetwork() == "front" {
		return nil, status.Error(codes.PermissionDenied, "endpoint with name web already exists in network front")
	}
	return &nodev1.ConnectNetworkResponse{}, nil
}

func (s fakeNetworks) Disconnect(_ context.Context, r *nodev1.DisconnectNetworkRequest) (*nodev1.DisconnectNetworkResponse, error) {
	if _, err := s.network(r.GetNetwork()); err != nil {
		return nil, err
	}
	if _, err := fakeInspect(r.GetContainer()); err != nil && !r.GetForce() {
		return nil, err
	}
	return &nodev1.DisconnectNetworkResponse{}, nil
}
