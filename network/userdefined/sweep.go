package userdefined

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/nodeagent/nodeagent/network/builtin"
	"github.com/nodeagent/nodeagent/network/nat"
)

// sweepAddresses gives back the addresses of a network that no endpoint has.
func (m *Manager) sweepAddresses(ctx context.Context, n Network, holders []types.GCAttachment) error {
	if _, err := os.Stat(filepath.Join(m.ipamDir(), n.ID)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if holders == nil {
		holders = []types.GCAttachment{}
	}
	a := attaching{m, n, &member{}, &endpoint{}}
	conf, err := json.Marshal(map[string]any{
		"cniVersion": cniVersion, "name": n.ID, "type": "bridge", "ipam": a.ipam(), "cni.dev/valid-attachments": holders,
	})
	if err == nil {
		_, err = m.cfg.Plugins.Run(ctx, "host-local", a.call("GC", "", conf))
	}
	if err != nil {
		return fmt.Errorf("give back addresses of network %s: %w", n.Name, err)
	}
	return nil
}

// recoverRules takes away the rules that belong to no network and no endpoint.
func (m *Manager) recoverRules() error {
	m.mu.RLock()
	owners := map[string]bool{}
	for _, n := range m.networks {
		owners[n.bridgeOwner()] = true
	}
	for _, p := range m.members {
		for _, e := range p.Endpoints {
			owners[builtin.Owner(containerID(p.PodID), e.Interface)] = true
		}
	}
	m.mu.RUnlock()
	table := m.cfg.Table
	var errs []error
	for _, owner := range table.Owners() {
		if !strings.HasPrefix(owner, builtin.UserPrefix) || owners[owner] {
			continue
		}
		errs = append(errs, table.Unpublish(owner), table.Unmasquerade(owner), table.Isolate(owner, nat.Bridge{}))
	}
	return errors.Join(errs...)
}

// Cleanup takes away what networks have on the host, when no pod is a member
// any more. Their records stay: the next agent makes their links again.
func (m *Manager) Cleanup(context.Context) error {
	m.mu.RLock()
	var all []Network
	for _, n := range m.networks {
		all = append(all, *n)
	}
	m.mu.RUnlock()
	var errs []error
	for _, n := range all {
		errs = append(errs, m.removeLink(n))
	}
	return errors.Join(errs...)
}
