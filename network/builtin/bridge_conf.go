package builtin

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ip"
	"golang.org/x/sys/unix"
)

const defaultBridge = "cni0"

// bridgeConf is bridge's configuration.
type bridgeConf struct {
	types.NetConf
	Bridge        string `json:"bridge"`
	IsGateway     bool   `json:"isGateway"`
	IsDefaultGW   bool   `json:"isDefaultGateway"`
	ForceAddress  bool   `json:"forceAddress"`
	IPMasq        bool   `json:"ipMasq"`
	MTU           int    `json:"mtu"`
	Hairpin       bool   `json:"hairpinMode"`
	Promiscuous   bool   `json:"promiscMode"`
	EnableDAD     bool   `json:"enabledad"`
	PortIsolation bool   `json:"portIsolation"`
	Args          struct {
		CNI struct {
			MAC string `json:"mac"`
		} `json:"cni"`
	} `json:"args"`
	RuntimeConfig struct {
		MAC string `json:"mac"`
	} `json:"runtimeConfig"`

	VLAN                int         `json:"vlan"`
	VLANTrunk           []vlanTrunk `json:"vlanTrunk"`
	PreserveDefaultVLAN bool        `json:"preserveDefaultVlan"`

	// What is left to the plugin.
	MACSpoofCheck    bool `json:"macspoofchk"`
	DisableContainer bool `json:"disableContainerInterface"`

	mac   net.HardwareAddr
	trunk []uint16
}

// macArgs is what bridge takes from CNI_ARGS.
type macArgs struct {
	types.CommonArgs
	MAC types.UnmarshallableString `json:"mac,omitempty"`
}

// supportsBridge leaves checks of MAC addresses and bridges without IPAM to the
// plugin.
func supportsBridge(raw []byte) error {
	conf, err := parseBridge(raw)
	if err == nil {
		err = conf.chooseMAC("")
	}
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	for _, option := range []struct {
		name string
		set  bool
	}{
		{"macspoofchk", conf.MACSpoofCheck},
		{"disableContainerInterface", conf.DisableContainer}, {"a configuration without ipam", conf.IPAM.Type == ""},
	} {
		if option.set {
			return fmt.Errorf("bridge: %s is not built in: %w", option.name, errdefs.ErrNotImplemented)
		}
	}
	return nil
}

// parseBridge reads and checks a configuration, but for the hardware address.
func parseBridge(raw []byte) (*bridgeConf, error) {
	conf := &bridgeConf{Bridge: defaultBridge}
	if err := json.Unmarshal(raw, conf); err != nil {
		return nil, fmt.Errorf("parse configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if conf.IsDefaultGW {
		conf.IsGateway = true
	}
	switch {
	case conf.Bridge == "" || len(conf.Bridge) >= unix.IFNAMSIZ || strings.ContainsAny(conf.Bridge, "/ \t\n"):
		return nil, fmt.Errorf("bridge %q is no name of a link: %w", conf.Bridge, errdefs.ErrInvalidArgument)
	case conf.Hairpin && conf.Promiscuous:
		return nil, fmt.Errorf("hairpinMode and promiscMode exclude each other: %w", errdefs.ErrInvalidArgument)
	case conf.DisableContainer && conf.IPAM.Type != "":
		return nil, fmt.Errorf("disableContainerInterface and ipam exclude each other: %w", errdefs.ErrInvalidArgument)
	case conf.MTU < 0 || conf.MTU > 65535:
		return nil, fmt.Errorf("mtu %d: %w", conf.MTU, errdefs.ErrInvalidArgument)
	}
	if err := conf.parseVLANs(); err != nil {
		return nil, err
	}
	if name := vlanGatewayName(conf); conf.VLAN != 0 && conf.IsGateway && len(name) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("%s, the gateway of VLAN %d, is too long for a link's name: %w", name, conf.VLAN, errdefs.ErrInvalidArgument)
	}
	return conf, nil
}

// chooseMAC takes the pod's hardware address from where it is given: the
// runtime, the network's configuration, CNI_ARGS, in this order.
func (conf *bridgeConf) chooseMAC(args string) error {
	var fromArgs macArgs
	if args != "" {
		if err := types.LoadArgs(args, &fromArgs); err != nil {
			return fmt.Errorf("parse CNI_ARGS: %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	for _, text := range []string{conf.RuntimeConfig.MAC, conf.Args.CNI.MAC, string(fromArgs.MAC)} {
		if text == "" {
			continue
		}
		mac, err := net.ParseMAC(text)
		if err != nil {
			return fmt.Errorf("hardware address: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		conf.mac = mac
		return nil
	}
	return nil
}

// completeResult points each address at the pod's interface, and adds the
// gateways and default routes that the configuration asks for. It returns the
// addresses the bridge must have.
func (conf *bridgeConf) completeResult(result *current.Result) []net.IPNet {
	var gateways []net.IPNet
	defaults := map[int]bool{}
	for _, config := range result.IPs {
		config.Interface = current.Int(podInterface)
		if config.Gateway == nil && conf.IsGateway {
			config.Gateway = ip.NextIP(config.Address.IP.Mask(config.Address.Mask))
		}
		family := familyOf(config.Address.IP)
		if conf.IsDefaultGW && !defaults[family] {
			defaults[family] = true
			addDefaultRoute(result, config)
		}
		if conf.IsGateway {
			gateways = append(gateways, net.IPNet{IP: config.Gateway, Mask: config.Address.Mask})
		}
	}
	return gateways
}

// addDefaultRoute adds a default route unless there is one with a gateway.
func addDefaultRoute(result *current.Result, config *current.IPConfig) {
	all := net.IPNet{IP: net.IPv4zero, Mask: net.IPMask(net.IPv4zero)}
	if familyOf(config.Address.IP) != familyOf(net.IPv4zero) {
		all = net.IPNet{IP: net.IPv6zero, Mask: net.IPMask(net.IPv6zero)}
	}
	for _, route := range result.Routes {
		if route.GW != nil && route.Dst.String() == all.String() {
			return
		}
	}
	result.Routes = append(result.Routes, &types.Route{Dst: all, GW: config.Gateway})
}
