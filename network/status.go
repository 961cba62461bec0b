package network

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/network/nat"
)

// Status returns nil when pods of no runtime handler in particular can be wired,
// else why not, of kind ErrUnavailable. The folder is looked at each time. What
// speaks against handlers with a network of their own is told by Info, and
// by Add.
func (m *Manager) Status(ctx context.Context) error {
	n, err := m.current("")
	if err != nil {
		return err
	}
	if err := m.findPlugins(n); err != nil {
		return err
	}
	if _, err := m.subnetsFor(n, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.PluginTimeout)
	defer cancel()
	if err := m.libcni(n).GetStatusNetworkList(ctx, n.list); err != nil {
		return fmt.Errorf("network %s: %w: %w", n.list.Name, err, errdefs.ErrUnavailable)
	}
	return nil
}

// findPlugins looks for the programs of plugins that are executed.
func (m *Manager) findPlugins(n *network) error {
	search := &executor{m, n.builtin}
	for _, plugin := range n.list.Plugins {
		for _, name := range []string{plugin.Network.Type, plugin.Network.IPAM.Type} {
			if name == "" {
				continue
			}
			if _, err := search.FindInPath(name, m.cfg.BinDirs); err != nil {
				if why := n.why[name]; why != nil {
					err = fmt.Errorf("%w (%v)", err, why)
				}
				return fmt.Errorf("network %s: %w", n.list.Name, err)
			}
		}
	}
	return nil
}

// Info is what people want to know of the network.
type Info struct {
	// Network is the name of the configuration for new pods; empty when there
	// is none.
	Network string
	// File is where it is; empty for the embedded network.
	File string
	// Plugins are its plugins, Builtin those carried out in process.
	Plugins, Builtin []string
	// Problems tell what is wrong with configurations, by file, and what of
	// the host's packet filters is in the way of pods.
	Problems []string
	// Failed is the last pod's wiring, if that failed.
	Failed *Failure
}

// Failure tells of a pod that could not be given its network.
type Failure struct {
	At          time.Time
	PodID, Text string
}

// Info describes the network for new pods.
func (m *Manager) Info() Info {
	info := Info{Failed: m.failed.Load()}
	if f, err := m.read(m.cfg.ConfDir); err == nil {
		info.Problems = slices.Clone(f.problems)
	}
	for _, handler := range m.handlers()[1:] {
		n, err := m.current(handler)
		if err == nil {
			err = m.findPlugins(n)
		}
		if err != nil {
			info.Problems = append(info.Problems, err.Error())
		}
	}
	if chains, err := nat.Forbidding(); err == nil {
		info.Problems = append(info.Problems, chains...)
	}
	n, err := m.current("")
	if err != nil {
		return info
	}
	info.Network, info.File = n.list.Name, n.file
	for _, plugin := range n.list.Plugins {
		info.Plugins = append(info.Plugins, plugin.Network.Type)
		if n.builtin[plugin.Network.Type] {
			info.Builtin = append(info.Builtin, plugin.Network.Type)
		}
	}
	return info
}
