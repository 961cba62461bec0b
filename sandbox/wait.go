package sandbox

import (
	"context"
	"fmt"
)

// WaitContainer returns once the container has exited.
func (m *Manager) WaitContainer(ctx context.Context, containerID string) (Container, error) {
	c, err := m.findContainer(containerID)
	if err != nil {
		return Container{}, fmt.Errorf("wait for container: %w", err)
	}
	select {
	case <-c.end():
		return c.get().Container, nil
	case <-ctx.Done():
		return Container{}, fmt.Errorf("wait for container %s: %w", c.get().ID, ctx.Err())
	}
}
