package network

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// Check asks the plugins whether the pod is still wired as Add left it. The
// error is of kind ErrNotFound when it was never wired.
func (m *Manager) Check(ctx context.Context, a Attachment) error {
	if err := checkAttachment(a); err != nil {
		return fmt.Errorf("check the network of pod %s: %w", a.PodID, err)
	}
	unlock, err := m.lockPod(ctx, a.PodID)
	if err != nil {
		return err
	}
	defer unlock()
	in, err := m.readIntent(a.PodID)
	if err == nil && (in == nil || in.Config == nil) {
		err = errdefs.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("check the network of pod %s: %w", a.PodID, err)
	}
	n, err := in.network()
	if err != nil {
		return fmt.Errorf("check the network of pod %s: %w", a.PodID, err)
	}
	conf, err := runtimeConf(in.Attachment)
	if err == nil {
		err = m.libcni(n).CheckNetworkList(ctx, n.list, conf)
	}
	if err != nil {
		return fmt.Errorf("check the network of pod %s: %w", a.PodID, err)
	}
	return nil
}
