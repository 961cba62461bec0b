package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/network/nat"
)

// portmapConf is portmap's configuration.
type portmapConf struct {
	types.NetConf
	SNAT          *bool `json:"snat"`
	RuntimeConfig struct {
		PortMappings []portMapping `json:"portMappings"`
	} `json:"runtimeConfig"`

	// What is left to the plugin.
	ConditionsV4         []string `json:"conditionsV4"`
	ConditionsV6         []string `json:"conditionsV6"`
	MasqAll              bool     `json:"masqAll"`
	ExternalSetMarkChain *string  `json:"externalSetMarkChain"`
}

type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// supportsPortmap leaves conditions in the words of iptables and nft, and
// marks for other programs, to the plugin.
func supportsPortmap(raw []byte) error {
	var conf portmapConf
	if err := json.Unmarshal(raw, &conf); err != nil {
		return fmt.Errorf("portmap: parse configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	for _, option := range []struct {
		name string
		set  bool
	}{
		{"conditionsV4", len(conf.ConditionsV4) > 0}, {"conditionsV6", len(conf.ConditionsV6) > 0}, {"masqAll", conf.MasqAll},
		{"externalSetMarkChain", conf.ExternalSetMarkChain != nil}, {"snat: false", conf.SNAT != nil && !*conf.SNAT},
	} {
		if option.set {
			return fmt.Errorf("portmap: %s is not built in: %w", option.name, errdefs.ErrNotImplemented)
		}
	}
	return nil
}

func parsePortmap(c *Call) (*portmapConf, error) {
	var conf portmapConf
	if err := json.Unmarshal(c.Conf, &conf); err != nil {
		return nil, fmt.Errorf("parse configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return &conf, nil
}

// portmapAdd publishes the pod's ports.
func (p *Plugins) portmapAdd(_ context.Context, c *Call) (*current.Result, error) {
	conf, err := parsePortmap(c)
	if err != nil {
		return nil, err
	}
	result, err := passOn(c)
	if err != nil || len(conf.RuntimeConfig.PortMappings) == 0 {
		return result, err
	}
	targets := podAddresses(result, c.IfName)
	ports, err := portsOf(conf.RuntimeConfig.PortMappings, targets)
	if err != nil || len(ports) == 0 {
		return result, err
	}
	link, err := linkTo(ports[0].Target.Addr())
	if err != nil {
		return nil, err
	}
	// The guard against outsiders must stand before 127/8 may be routed.
	if err := p.table.Publish(c.owner(), nat.Published{Ports: ports, Targets: targets, Link: link}); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(ports, func(port nat.Port) bool { return port.Target.Addr().Is4() }) {
		if err := ensureSysctl("1", "ipv4", "conf", link, "route_localnet"); err != nil {
			return nil, err
		}
	}
	forgetFlows(ports)
	return result, nil
}

// portmapRestore publishes the pod's ports as portmapAdd did, unless they are.
func (p *Plugins) portmapRestore(ctx context.Context, c *Call) (*current.Result, error) {
	if len(p.table.Owned(c.owner()).Ports) > 0 {
		return nil, nil
	}
	return p.portmapAdd(ctx, c)
}

// portmapDel takes the pod's ports back.
func (p *Plugins) portmapDel(_ context.Context, c *Call) (*current.Result, error) {
	ports := p.table.Owned(c.owner()).Ports
	if err := p.table.Unpublish(c.owner()); err != nil {
		return nil, err
	}
	forgetFlows(ports)
	return nil, nil
}

// portmapCheck compares what is published with what should be.
func (p *Plugins) portmapCheck(_ context.Context, c *Call) (*current.Result, error) {
	conf, err := parsePortmap(c)
	if err != nil {
		return nil, err
	}
	result, err := passOn(c)
	if err != nil {
		return nil, err
	}
	want, err := portsOf(conf.RuntimeConfig.PortMappings, podAddresses(result, c.IfName))
	if err != nil {
		return nil, err
	}
	have := p.table.Owned(c.owner()).Ports
	for _, port := range want {
		if !slices.Contains(have, port) {
			return nil, fmt.Errorf("%s is not published: %w", port, errdefs.ErrFailedPrecondition)
		}
	}
	return nil, nil
}

// podAddresses picks the pod's first address of each family.
func podAddresses(result *current.Result, ifName string) []netip.Prefix {
	var addrs []netip.Prefix
	seen := map[bool]bool{}
	for _, config := range result.IPs {
		if i := config.Interface; i != nil && *i >= 0 && *i < len(result.Interfaces) {
			if link := result.Interfaces[*i]; link.Name != ifName || link.Sandbox == "" {
				continue
			}
		}
		addr := prefixOf(config.Address)
		if addr.IsValid() && !seen[addr.Addr().Is4()] {
			seen[addr.Addr().Is4()] = true
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// portsOf makes a rule of each mapping and address of the family it is for: a
// mapping without a host's address is for both, one for 0.0.0.0 or :: for all
// addresses of that family.
func portsOf(mappings []portMapping, addrs []netip.Prefix) ([]nat.Port, error) {
	var ports []nat.Port
	for _, m := range mappings {
		proto, err := protocolNumber(m.Protocol)
		if err != nil {
			return nil, err
		}
		if m.HostPort < 1 || m.HostPort > 65535 || m.ContainerPort < 1 || m.ContainerPort > 65535 {
			return nil, fmt.Errorf("port mapping %d:%d: ports are 1 to 65535: %w", m.HostPort, m.ContainerPort, errdefs.ErrInvalidArgument)
		}
		var hostIP netip.Addr
		if m.HostIP != "" {
			if hostIP, err = netip.ParseAddr(m.HostIP); err != nil {
				return nil, fmt.Errorf("port mapping: host address: %w: %w", err, errdefs.ErrInvalidArgument)
			}
			hostIP = hostIP.Unmap().WithZone("")
		}
		for _, prefix := range addrs {
			addr := prefix.Addr()
			if hostIP.IsValid() && hostIP.Is4() != addr.Is4() {
				continue
			}
			port := nat.Port{Protocol: proto, HostPort: uint16(m.HostPort), Target: netip.AddrPortFrom(addr, uint16(m.ContainerPort))}
			if hostIP.IsValid() && !hostIP.IsUnspecified() {
				port.HostIP = hostIP
			}
			ports = append(ports, port)
		}
	}
	return ports, nil
}

func protocolNumber(name string) (uint8, error) {
	switch strings.ToLower(name) {
	case "tcp", "":
		return unix.IPPROTO_TCP, nil
	case "udp":
		return unix.IPPROTO_UDP, nil
	case "sctp":
		return unix.IPPROTO_SCTP, nil
	}
	return 0, fmt.Errorf("port mapping: protocol %q: %w", name, errdefs.ErrInvalidArgument)
}

// linkTo finds the host's interface behind which an address is.
func linkTo(addr netip.Addr) (string, error) {
	h, err := routeHandle()
	if err != nil {
		return "", err
	}
	defer h.Close()
	routes, err := h.RouteGet(addr.AsSlice())
	if err != nil || len(routes) == 0 {
		return "", fmt.Errorf("find the route to pod address %s: %w", addr, err)
	}
	link, err := h.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", fmt.Errorf("find the interface of pod address %s: %w", addr, err)
	}
	return link.Attrs().Name, nil
}

// forgetFlows deletes what connection tracking remembers of UDP to the ports:
// a client that goes on sending would otherwise keep going where the port led
// before. Other protocols notice by themselves. A failure costs at most that.
func forgetFlows(ports []nat.Port) {
	var h *netlink.Handle
	for _, port := range ports {
		if port.Protocol != unix.IPPROTO_UDP {
			continue
		}
		if h == nil {
			var err error
			if h, err = netlink.NewHandle(unix.NETLINK_NETFILTER); err != nil {
				logrus.WithError(err).Warn("cannot forget flows of published UDP ports")
				return
			}
			defer h.Close()
		}
		if err := forgetFlow(h, port); err != nil {
			logrus.WithError(err).WithField("port", port.String()).Warn("cannot forget flows of a published UDP port")
		}
	}
}

func forgetFlow(h *netlink.Handle, port nat.Port) error {
	filter := &netlink.ConntrackFilter{}
	if err := filter.AddProtocol(port.Protocol); err != nil {
		return err
	}
	if err := filter.AddPort(netlink.ConntrackOrigDstPort, port.HostPort); err != nil {
		return err
	}
	family := netlink.InetFamily(unix.AF_INET)
	if port.Target.Addr().Is6() {
		family = unix.AF_INET6
	}
	_, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, family, filter)
	return err
}
