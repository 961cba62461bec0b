package network

import (
	"context"
	"fmt"

	"github.com/nodeagent/nodeagent/network/netns"
)

// Del takes back all that Add gave, with the configuration that Add used. A
// nil error means that the pod has nothing any more, so that another pod can
// have it, and its links are down and are being deleted; also when it never
// had anything, was wired half-way, or its namespace is gone. After an error it
// is tried again by the next Del or GC.
func (m *Manager) Del(ctx context.Context, a Attachment) error {
	if err := checkPodID(a.PodID); err != nil {
		return fmt.Errorf("unwire pod: %w", err)
	}
	unlock, err := m.lockPod(ctx, a.PodID)
	if err != nil {
		return err
	}
	defer unlock()
	if m.reaper.has(a.PodID) {
		return nil
	}
	in, err := m.readIntent(a.PodID)
	if err != nil || in == nil {
		return err
	}
	if in.Config == nil {
		in.Attachment = a // what the record lost
	}
	if err := m.giveBack(ctx, in); err != nil {
		return fmt.Errorf("unwire pod %s: %w", a.PodID, err)
	}
	return nil
}

// carryBack gives back all that a pod has, and waits for its links to go.
func (m *Manager) carryBack(ctx context.Context, in *intent) error {
	if err := m.giveBack(ctx, in); err != nil {
		return err
	}
	return m.reaper.wait(ctx, in.Attachment.PodID)
}

// giveBack runs DEL of all plugins, and forgets the intent once the pod's links
// are gone.
func (m *Manager) giveBack(ctx context.Context, in *intent) error {
	n, err := m.networkOf(in)
	if err != nil {
		return err
	}
	a := in.Attachment
	if a.NetNS, err = netns.Living(a.NetNS); err != nil {
		return err
	}
	conf, err := runtimeConf(a)
	if err != nil {
		return err
	}
	if err := m.libcni(n).DelNetworkList(ctx, n.list, conf); err != nil {
		return err
	}
	return m.seeOff(a)
}

// networkOf is the network an intent was written for, or the one of today when
// its record was lost.
func (m *Manager) networkOf(in *intent) (*network, error) {
	if in.Config == nil {
		return m.current(in.Attachment.Handler)
	}
	return in.network()
}
