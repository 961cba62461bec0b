package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/network/netns"
)

// Add wires a pod, whose namespace must be there, to the network that is
// configured now. A nil error means that it has its addresses and can talk. On
// an error nothing is left, or, when taking it back failed as well, what is
// left is recorded, and Del or GC will try again.
//
// The error is of kind ErrAlreadyExists when the pod is wired already or one
// of its host ports is taken, ErrUnavailable when no network is ready,
// ErrResourceExhausted when the network has no address left.
func (m *Manager) Add(ctx context.Context, a Attachment) (*Result, error) {
	if err := checkAttachment(a); err != nil {
		return nil, fmt.Errorf("wire pod %s: %w", a.PodID, err)
	}
	unlock, err := m.lockPod(ctx, a.PodID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	m.gate.RLock()
	defer m.gate.RUnlock()
	result, err := m.addLocked(ctx, a)
	if err != nil {
		m.failed.Store(&Failure{At: time.Now(), PodID: a.PodID, Text: err.Error()})
		return nil, fmt.Errorf("wire pod %s: %w", a.PodID, err)
	}
	m.failed.Store(nil)
	return result, nil
}

func checkAttachment(a Attachment) error {
	if err := checkPodID(a.PodID); err != nil {
		return err
	}
	if a.NetNS == "" {
		return fmt.Errorf("no network namespace: %w", errdefs.ErrInvalidArgument)
	}
	return checkArgs(a)
}

func (m *Manager) addLocked(ctx context.Context, a Attachment) (*Result, error) {
	n, err := m.current(a.Handler)
	if err != nil {
		return nil, err
	}
	if err := m.findPlugins(n); err != nil {
		return nil, err
	}
	if a.Subnets, err = m.subnetsFor(n, a.Subnets); err != nil {
		return nil, err
	}
	conf, err := runtimeConf(a)
	if err != nil {
		return nil, err
	}
	if err := m.reaper.wait(ctx, a.PodID); err != nil {
		return nil, err
	}
	if err := m.clear(ctx, a.PodID); err != nil {
		return nil, err
	}
	if !n.volatile {
		if err := m.announce(); err != nil {
			return nil, err
		}
	}
	in := newIntent(a, n)
	var result *Result
	err = undo.Sequence{Name: "network.add", Steps: []undo.Step{
		{
			Name: "intent",
			Do:   func(context.Context) error { return m.writeIntent(in) },
			Undo: func(ctx context.Context) error { return m.carryBack(ctx, in) },
		},
		{
			Name: "loopback",
			Do:   func(context.Context) error { return netns.LoopbackUp(a.NetNS) },
		},
		{
			Name: "plugins",
			Do: func(ctx context.Context) error {
				result, err = m.runPlugins(ctx, n, conf)
				return err
			},
		},
	}}.Run(ctx)
	if err != nil {
		return nil, err
	}
	return result, nil
}

// clear takes back what an Add left that was killed half-way. A pod that is
// wired whole is an error.
func (m *Manager) clear(ctx context.Context, podID string) error {
	in, err := m.readIntent(podID)
	if err != nil || in == nil {
		return err
	}
	n, err := in.network()
	if err == nil {
		conf := &libcni.RuntimeConf{ContainerID: podID, IfName: in.Attachment.interfaceName()}
		if cached, err := m.libcni(n).GetNetworkListCachedResult(n.list, conf); err == nil && cached != nil {
			return fmt.Errorf("pod is wired already: %w", errdefs.ErrAlreadyExists)
		}
	}
	return m.carryBack(ctx, in)
}

func (m *Manager) runPlugins(ctx context.Context, n *network, conf *libcni.RuntimeConf) (*Result, error) {
	raw, err := m.libcni(n).AddNetworkList(ctx, n.list, conf)
	if err != nil {
		return nil, err
	}
	return resultOf(raw, n.list.Name, conf.IfName)
}

// resultOf picks from a CNI result what matters of a pod, whose interface is
// called ifName.
func resultOf(raw types.Result, name, ifName string) (*Result, error) {
	from, err := current.NewResultFromResult(raw)
	if err != nil {
		return nil, fmt.Errorf("result of network %s: %w", name, err)
	}
	result := &Result{Interface: ifName, Network: name}
	for _, link := range from.Interfaces {
		switch {
		case link.Sandbox == "":
			// The host's end comes after the bridge, if there is one, and
			// before the pod's; other links may follow.
			if result.HostInterface == "" || result.MAC == "" {
				result.HostInterface = link.Name
			}
		case link.Name == ifName:
			result.MAC = link.Mac
		}
	}
	ips := ipsOf(from, func(link *current.Interface) bool { return link.Sandbox != "" && link.Name == ifName })
	if len(ips) == 0 {
		// The plugin calls the pod's interface otherwise.
		ips = ipsOf(from, func(link *current.Interface) bool { return link.Sandbox != "" })
	}
	for _, config := range ips {
		ones, _ := config.Address.Mask.Size()
		addr, ok := netip.AddrFromSlice(config.Address.IP)
		if !ok {
			continue
		}
		result.Addresses = append(result.Addresses, netip.PrefixFrom(addr.Unmap(), ones))
		if gateway, ok := netip.AddrFromSlice(config.Gateway); ok && !result.Gateway.IsValid() {
			result.Gateway = gateway.Unmap()
		}
	}
	if len(result.Addresses) == 0 {
		return nil, fmt.Errorf("network %s gave the pod no address: %w", name, errdefs.ErrUnavailable)
	}
	return result, nil
}

// ipsOf picks the addresses of interfaces that are wanted, and of none in
// particular.
func ipsOf(result *current.Result, wanted func(*current.Interface) bool) []*current.IPConfig {
	return slices.DeleteFunc(slices.Clone(result.IPs), func(config *current.IPConfig) bool {
		i := config.Interface
		return i != nil && *i >= 0 && *i < len(result.Interfaces) && !wanted(result.Interfaces[*i])
	})
}
