package container

import (
	"net/netip"
	"slices"
	"strconv"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// The types below have docker's names, which templates use.
type (
	networkSettings struct {
		Bridge                 string
		SandboxID              string
		SandboxKey             string
		Ports                  map[string][]portBinding
		HairpinMode            bool
		LinkLocalIPv6Address   string
		LinkLocalIPv6PrefixLen int
		SecondaryIPAddresses   []string
		SecondaryIPv6Addresses []string
		EndpointID             string
		Gateway                string
		GlobalIPv6Address      string
		GlobalIPv6PrefixLen    int
		IPAddress              string
		IPPrefixLen            int
		IPv6Gateway            string
		MacAddress             string
		Networks               map[string]endpoint
	}
	endpoint struct {
		IPAMConfig          *ipamConfig
		Links               []string
		Aliases             []string
		MacAddress          string
		DriverOpts          map[string]string
		GwPriority          int
		NetworkID           string
		EndpointID          string
		Gateway             string
		IPAddress           string
		IPPrefixLen         int
		IPv6Gateway         string
		GlobalIPv6Address   string
		GlobalIPv6PrefixLen int
		DNSNames            []string
	}
	ipamConfig struct {
		IPv4Address string `json:",omitempty"`
		IPv6Address string `json:",omitempty"`
	}
)

// networkOf is a container's networks in docker's form.
func networkOf(info *nodev1.InspectResponse) networkSettings {
	c := info.GetContainer()
	out := networkSettings{
		SandboxID: info.GetPodId(), SandboxKey: info.GetAddresses().GetNetns(),
		Ports: map[string][]portBinding{}, Networks: map[string]endpoint{},
	}
	// docker gives addresses back when a container stops, and shows none.
	runs := c.GetState() == "running" || c.GetState() == "paused"
	if runs {
		out.Ports = publishedPorts(c.GetPorts())
	}
	for _, e := range info.GetEndpoints() {
		place := endpointOf(e, runs)
		if e.GetNetworkName() == "bridge" {
			out.EndpointID, out.MacAddress = place.EndpointID, place.MacAddress
			out.Gateway, out.IPAddress, out.IPPrefixLen = place.Gateway, place.IPAddress, place.IPPrefixLen
			out.IPv6Gateway, out.GlobalIPv6Address, out.GlobalIPv6PrefixLen = place.IPv6Gateway, place.GlobalIPv6Address, place.GlobalIPv6PrefixLen
		}
		out.Networks[e.GetNetworkName()] = place
	}
	return out
}

// publishedPorts are a running container's ports, those not published too.
func publishedPorts(ports []*nodev1.Port) map[string][]portBinding {
	out := map[string][]portBinding{}
	for _, p := range ports {
		name := portName(p)
		switch {
		case p.GetHostPort() != 0:
			out[name] = append(out[name], portBinding{HostIP: hostIP(p), HostPort: strconv.Itoa(int(p.GetHostPort()))})
		case out[name] == nil:
			out[name] = nil
		}
	}
	return out
}

// endpointOf is a container's place on a network; what it has while it runs is
// left out when it does not.
func endpointOf(e *nodev1.Endpoint, runs bool) endpoint {
	spec := e.GetSpec()
	out := endpoint{
		Links: spec.GetLinks(), Aliases: spec.GetAliases(), DriverOpts: spec.GetDriverOptions(), GwPriority: int(spec.GetGatewayPriority()),
		NetworkID: e.GetNetworkId(), DNSNames: e.GetNames(), MacAddress: spec.GetMac(),
	}
	if spec.GetIpv4() != "" || spec.GetIpv6() != "" {
		out.IPAMConfig = &ipamConfig{IPv4Address: spec.GetIpv4(), IPv6Address: spec.GetIpv6()}
	}
	if !runs {
		return out
	}
	out.EndpointID, out.MacAddress, out.Gateway, out.IPv6Gateway = e.GetEndpointId(), e.GetMac(), e.GetGateway4(), e.GetGateway6()
	if p, err := netip.ParsePrefix(e.GetIpv4()); err == nil {
		out.IPAddress, out.IPPrefixLen = p.Addr().String(), p.Bits()
	}
	if p, err := netip.ParsePrefix(e.GetIpv6()); err == nil {
		out.GlobalIPv6Address, out.GlobalIPv6PrefixLen = p.Addr().String(), p.Bits()
	}
	return out
}

// onNetwork says whether a container is on a network.
func onNetwork(c *nodev1.Container, name string) bool {
	return c.GetNetworkMode() == name || slices.Contains(c.GetNetworks(), name)
}
