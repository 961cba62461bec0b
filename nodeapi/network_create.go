package nodeapi

import (
	"context"
	"net/netip"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/network/userdefined"
)

// Create makes a network.
func (s *peopleNetworks) Create(ctx context.Context, req *nodev1.CreateNetworkRequest) (*nodev1.CreateNetworkResponse, error) {
	wish := userdefined.CreateRequest{
		Name: req.GetName(), Driver: req.GetDriver(), Internal: req.GetInternal(), Attachable: req.GetAttachable(),
		NoIPv4: req.GetNoIpv4(), IPv6: req.GetIpv6(), Options: req.GetOptions(), Labels: req.GetLabels(),
	}
	for _, text := range req.GetSubnets() {
		subnet, err := subnetOf(text)
		if err != nil {
			return nil, err
		}
		wish.Subnets = append(wish.Subnets, subnet)
	}
	n, err := s.networks.Create(ctx, wish)
	if err != nil {
		return nil, personal(err)
	}
	s.emitNetwork("create", n)
	return &nodev1.CreateNetworkResponse{Id: n.ID}, nil
}

// subnetOf reads a subnet.
func subnetOf(m *nodev1.Subnet) (userdefined.Subnet, error) {
	var s userdefined.Subnet
	var err error
	if s.Prefix, err = netip.ParsePrefix(m.GetSubnet()); err != nil {
		return s, failf(errdefs.ErrInvalidArgument, "invalid CIDR address: %s", m.GetSubnet())
	}
	if m.GetIpRange() != "" {
		if s.Range, err = netip.ParsePrefix(m.GetIpRange()); err != nil {
			return s, failf(errdefs.ErrInvalidArgument, "invalid CIDR address: %s", m.GetIpRange())
		}
	}
	if m.GetGateway() != "" {
		if s.Gateway, err = netip.ParseAddr(m.GetGateway()); err != nil {
			return s, failf(errdefs.ErrInvalidArgument, "invalid IP address: %s", m.GetGateway())
		}
	}
	for name, text := range m.GetAuxiliary() {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return s, failf(errdefs.ErrInvalidArgument, "invalid IP address: %s", text)
		}
		if s.Auxiliary == nil {
			s.Auxiliary = map[string]netip.Addr{}
		}
		s.Auxiliary[name] = addr
	}
	return s, nil
}
