package cri

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UpdateRuntimeConfig hands the node's pod ranges to the network: one, or one
// of each family with a comma between.
func (s *Server) UpdateRuntimeConfig(ctx context.Context, req *runtime.UpdateRuntimeConfigRequest) (*runtime.UpdateRuntimeConfigResponse, error) {
	cidrs, err := parseCIDRs(req.GetRuntimeConfig().GetNetworkConfig().GetPodCidr())
	if err != nil {
		return nil, err
	}
	// kubelet sends an empty range before it knows any.
	if len(cidrs) > 0 {
		if err := s.network.SetPodCIDR(ctx, cidrs); err != nil {
			return nil, fmt.Errorf("update runtime config: %w", err)
		}
	}
	return &runtime.UpdateRuntimeConfigResponse{}, nil
}

func parseCIDRs(list string) ([]netip.Prefix, error) {
	var cidrs []netip.Prefix
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, invalid("runtime_config.network_config.pod_cidr", fmt.Sprintf("%q is no range of addresses", text))
		}
		cidrs = append(cidrs, cidr.Masked())
	}
	return cidrs, nil
}
