package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/nodeagent/nodeagent/network/builtin"
)

// GC takes back what pods have that keep does not name. keep must have every
// pod whose Add has returned; pods that are being added meanwhile are not
// touched. Rules of kept pods that are missing are written again. Where the
// configuration is of CNI 1.1, the plugins are asked to clean up as well. It
// goes on past failures and returns all of them.
func (m *Manager) GC(ctx context.Context, keep []Attachment) error {
	kept := map[string]bool{}
	for _, a := range keep {
		kept[a.PodID] = true
	}
	// Behind the gate no Add is half-way.
	m.gate.Lock()
	ids, err := m.listIntents()
	m.gate.Unlock()
	if err != nil {
		return fmt.Errorf("clean up networks: %w", err)
	}
	cleaning, cancel := halfOf(ctx)
	defer cancel()
	var errs []error
	for _, id := range ids {
		if kept[id] {
			continue
		}
		if err := m.Del(cleaning, Attachment{PodID: id}); err != nil {
			errs = append(errs, err)
		}
	}
	if err := m.reaper.drain(cleaning); err != nil {
		errs = append(errs, err)
	}
	if err := m.sweep(cleaning); err != nil {
		errs = append(errs, fmt.Errorf("clean up networks: %w", err))
	}
	if err := m.restore(ctx, keep); err != nil {
		errs = append(errs, fmt.Errorf("clean up networks: %w", err))
	}
	return errors.Join(errs...)
}

// halfOf is a context with half the time that is left of another, so that a plugin
// that hangs over what pods have left does not keep the others from what they
// need.
func halfOf(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}

// sweep has the plugins clean up what belongs to no recorded pod. New pods wait
// meanwhile, since they would look like such.
func (m *Manager) sweep(ctx context.Context) error {
	m.gate.Lock()
	defer m.gate.Unlock()
	ids, err := m.listIntents()
	if err != nil {
		return err
	}
	owners := map[string]bool{}
	valid := map[string][]types.GCAttachment{}
	networks := map[string]*network{}
	for _, handler := range m.handlers() {
		if n, err := m.current(handler); err == nil && networks[n.list.Name] == nil {
			networks[n.list.Name] = n
		}
	}
	for _, id := range ids {
		in, err := m.readIntent(id)
		if err != nil {
			return err
		}
		if in == nil {
			continue // it was given back meanwhile
		}
		ifName := in.Attachment.interfaceName()
		owners[builtin.Owner(id, ifName)] = true
		valid[in.Network] = append(valid[in.Network], types.GCAttachment{ContainerID: id, IfName: ifName})
		if in.Config == nil {
			// Which network it is on is not known: nothing of it may be lost.
			return fmt.Errorf("the record of pod %s is lost", id)
		}
		if n, err := in.network(); err == nil && networks[in.Network] == nil {
			networks[in.Network] = n
		}
	}
	errs := []error{m.plugins.Sweep(owners)}
	for name, n := range networks {
		others, err := m.neighbours(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", name, err))
			continue
		}
		attachments := append(append([]types.GCAttachment{}, valid[name]...), others...)
		err = m.libcni(n).GCNetworkList(ctx, n.list, &libcni.GCArgs{ValidAttachments: attachments})
		if err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
