package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

// RenameContainer gives a container of nodectl another name, in whatever
// state it is. Its pod keeps the name it was made with, and so do host name
// and environment. Whether the name is free is for the caller to know.
func (m *Manager) RenameContainer(ctx context.Context, containerID, name string) error {
	c, err := m.findContainer(containerID)
	if err != nil {
		return fmt.Errorf("rename container: %w", err)
	}
	id := c.get().ID
	if c.get().Owner != OwnerNodectl {
		return fmt.Errorf("rename container %s: it is kubelet's: %w", id, errdefs.ErrFailedPrecondition)
	}
	if err := acquire(ctx, c.busy); err != nil {
		return fmt.Errorf("rename container %s: %w", id, err)
	}
	defer c.busy.release()
	config := proto.CloneOf(c.get().Config)
	config.Metadata.Name = name
	if err := m.changeContainer(c, func(s *containerState) { s.Config = config }); err != nil {
		return fmt.Errorf("rename container %s: %w", id, err)
	}
	return nil
}
