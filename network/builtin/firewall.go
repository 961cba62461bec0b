package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/nodeagent/nodeagent/network/nat"
)

const (
	defaultAdminChain = "CNI-ADMIN"
	// maxChain is the longest name of a chain that iptables takes.
	maxChain = 28
)

// firewallConf is firewall's configuration.
type firewallConf struct {
	Backend       string `json:"backend"`
	IngressPolicy string `json:"ingressPolicy"`
	AdminChain    string `json:"iptablesAdminChainName"`
}

// supportsFirewall leaves policies other than open, firewalld's zones, and
// hosts whose filters are not iptables' in nftables, to the plugin.
func supportsFirewall(raw []byte) error {
	conf, err := parseFirewall(raw)
	if err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	if conf.IngressPolicy != "" && conf.IngressPolicy != "open" {
		return fmt.Errorf("firewall: ingressPolicy %q is not built in: %w", conf.IngressPolicy, errdefs.ErrNotImplemented)
	}
	if conf.Backend == "firewalld" {
		return fmt.Errorf("firewall: backend firewalld is not built in: %w", errdefs.ErrNotImplemented)
	}
	if err := nat.ForeignFilter(); err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	return nil
}

func parseFirewall(raw []byte) (*firewallConf, error) {
	conf := &firewallConf{}
	if err := json.Unmarshal(raw, conf); err != nil {
		return nil, fmt.Errorf("parse configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if conf.AdminChain == "" {
		conf.AdminChain = defaultAdminChain
	}
	if len(conf.AdminChain) > maxChain || strings.ContainsAny(conf.AdminChain, " \t\n!") || strings.HasPrefix(conf.AdminChain, "-") {
		return nil, fmt.Errorf("iptablesAdminChainName %q is no name of a chain: %w", conf.AdminChain, errdefs.ErrInvalidArgument)
	}
	return conf, nil
}

// forwarding reads the configuration, and the addresses of prevResult.
func forwarding(c *Call) (nat.Forwarding, *current.Result, error) {
	conf, err := parseFirewall(c.Conf)
	if err != nil {
		return nat.Forwarding{}, nil, err
	}
	result, err := previous(c.Conf)
	if err != nil {
		return nat.Forwarding{}, nil, err
	}
	f := nat.Forwarding{Admin: conf.AdminChain}
	if result != nil {
		for _, config := range result.IPs {
			if addr, ok := netip.AddrFromSlice(config.Address.IP); ok {
				f.Addrs = append(f.Addrs, addr.Unmap())
			}
		}
	}
	return f, result, nil
}

// firewallAdd lets through what the pod sends, and the answers.
func (p *Plugins) firewallAdd(_ context.Context, c *Call) (*current.Result, error) {
	if _, err := passOn(c); err != nil {
		return nil, err
	}
	f, result, err := forwarding(c)
	if err != nil {
		return nil, err
	}
	return result, p.table.Accept(c.owner(), f)
}

func (p *Plugins) firewallDel(_ context.Context, c *Call) (*current.Result, error) {
	f, _, err := forwarding(c)
	if err != nil {
		return nil, err
	}
	return nil, p.table.Unaccept(c.owner(), f.Addrs)
}

func (p *Plugins) firewallCheck(_ context.Context, c *Call) (*current.Result, error) {
	f, _, err := forwarding(c)
	if err != nil {
		return nil, err
	}
	there, err := p.table.Accepts(f)
	if err == nil && !there {
		err = fmt.Errorf("rules that accept what the pod sends are missing: %w", errdefs.ErrFailedPrecondition)
	}
	return nil, err
}

// firewallRestore writes the rules anew unless they are there.
func (p *Plugins) firewallRestore(_ context.Context, c *Call) (*current.Result, error) {
	f, _, err := forwarding(c)
	if err != nil {
		return nil, err
	}
	if there, err := p.table.Accepts(f); err != nil || there {
		return nil, err
	}
	if err := p.table.Unaccept(c.owner(), f.Addrs); err != nil {
		return nil, err
	}
	return nil, p.table.Accept(c.owner(), f)
}
