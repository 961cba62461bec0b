package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
)

// Cleanup removes what the embedded network leaves when its last pod is gone,
// for the next pod to find: bridges, the nftables table, records. It is an
// error of kind ErrFailedPrecondition, and nothing is removed, while a pod has
// something of any network. Nil also when nothing is left.
func (m *Manager) Cleanup(ctx context.Context) error {
	if err := m.reaper.drain(ctx); err != nil {
		return err
	}
	m.gate.Lock()
	defer m.gate.Unlock()
	ids, err := m.listIntents()
	if err != nil {
		return err
	}
	if len(ids) > 0 {
		return fmt.Errorf("remove the embedded network: %d pods are wired: %w", len(ids), errdefs.ErrFailedPrecondition)
	}
	m.fallbackMu.Lock()
	defer m.fallbackMu.Unlock()
	f, err := m.readFallback()
	if err != nil {
		return err
	}
	if f != nil {
		for _, bridge := range f.Bridges {
			if err := removeBridge(bridge); err != nil {
				return err
			}
		}
	}
	if err := m.table.Destroy(); err != nil {
		return err
	}
	m.fallback = nil
	for _, path := range []string{m.fallbackPath(), filepath.Join(m.cfg.StateDir, "ipam", DefaultNetwork)} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove the embedded network: %w", err)
		}
	}
	return nil
}

func removeBridge(name string) error {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err == nil && link.Type() == "bridge" {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("remove bridge %s: %w", name, err)
	}
	return nil
}
