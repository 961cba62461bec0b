package sandbox

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/sandbox/namespace"
)

// namespaces is what is done to the host itself; tests put another in its
// place, for it needs root.
type namespaces interface {
	PrepareRoot(dir string) error
	ReleaseRoot(dir string) error
	Pin(ctx context.Context, req namespace.Request) (later map[string]string, err error)
	PinPID(dir string, pid int) error
	Unpin(dir string) error
	Pinned(path string) bool
	Sysctls(ctx context.Context, path string, values map[string]string) error
	Run(ctx context.Context, path string, kind namespace.Kind, fn func() error) error
	Links(ctx context.Context, path string) ([]namespace.Link, error)
	MountShm(dir string, size int) error
	Unmount(path string) error
}

// hostNamespaces is the real one.
type hostNamespaces struct{}

func (hostNamespaces) PrepareRoot(dir string) error { return namespace.PrepareRoot(dir) }

func (hostNamespaces) ReleaseRoot(dir string) error { return namespace.ReleaseRoot(dir) }

func (hostNamespaces) Pin(ctx context.Context, req namespace.Request) (map[string]string, error) {
	return namespace.Pin(ctx, req)
}

func (hostNamespaces) PinPID(dir string, pid int) error { return namespace.PinPID(dir, pid) }

func (hostNamespaces) Unpin(dir string) error { return namespace.Unpin(dir) }

func (hostNamespaces) Pinned(path string) bool { return namespace.Pinned(path) }

func (hostNamespaces) Sysctls(ctx context.Context, path string, values map[string]string) error {
	return namespace.Sysctls(ctx, path, values)
}

func (hostNamespaces) Run(ctx context.Context, path string, kind namespace.Kind, fn func() error) error {
	return namespace.Run(ctx, path, kind, fn)
}

func (hostNamespaces) Links(ctx context.Context, path string) ([]namespace.Link, error) {
	return namespace.Links(ctx, path)
}

// MountShm mounts a /dev/shm of size bytes on dir.
func (hostNamespaces) MountShm(dir string, size int) error {
	data := fmt.Sprintf("mode=1777,size=%d", size)
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

func (hostNamespaces) Unmount(path string) error { return namespace.Unmount(path) }
