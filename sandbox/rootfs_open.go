package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/sandbox/idmap"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
)

// OpenRootfs opens the root folder of a container's root filesystem as the
// container sees it, without what is mounted in it, whether it runs or not.
// What is not mounted is mounted for the caller alone, read-only: its
// descriptor is all there is of it. The caller closes it, and resolves paths
// in it by openat2 only: a container changes them meanwhile. A container that
// is removed meanwhile goes on being there in part.
func (m *Manager) OpenRootfs(ctx context.Context, containerID string) (*os.File, error) {
	c, err := m.findContainer(containerID)
	if err != nil {
		return nil, fmt.Errorf("open root filesystem: %w", err)
	}
	id := c.get().ID
	// No start, stop or removal meanwhile; reading needs no lock.
	if err := acquire(ctx, c.busy); err != nil {
		return nil, fmt.Errorf("open root filesystem of container %s: %w", id, err)
	}
	defer c.busy.release()
	var root *os.File
	// A folder may have other filesystems mounted below it where it is mounted.
	if c.get().Folder == "" {
		root, err = m.openMounted(id)
	}
	if root == nil && err == nil {
		root, err = m.openUnmounted(ctx, c.get())
	}
	if err != nil {
		return nil, fmt.Errorf("open root filesystem of container %s: %w", id, err)
	}
	return root, nil
}

// openMounted opens the root filesystem where it is mounted; nil where it is
// not.
func (m *Manager) openMounted(id string) (*os.File, error) {
	f, err := openFolder(m.rootfsDir(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		f.Close()
		return nil, os.NewSyscallError("statx", err)
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		f.Close()
		return nil, nil
	}
	return f, nil
}

func openFolder(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// openUnmounted mounts the root filesystem, opens it, and takes the mount
// away from its place again. Should the agent be killed in between, the mount
// goes with the container.
func (m *Manager) openUnmounted(ctx context.Context, c *containerState) (*os.File, error) {
	p, err := m.findPod(c.PodID)
	if err != nil {
		return nil, err
	}
	return m.openAt(c, func(point string) error {
		if c.Folder != "" {
			return m.bindFolder(c, p.get(), idmap.BindRequest{Target: point, ReadOnly: true})
		}
		mounts, err := m.deps.Snapshots.Mounts(ctx, c.SnapshotKey)
		if err != nil {
			return err
		}
		return m.mountReadOnly(ctx, mounts, point, c.ID, p.get())
	})
}

// openAt opens what mount mounts on a folder made for it, and takes it away
// from there.
func (m *Manager) openAt(c *containerState, mount func(point string) error) (*os.File, error) {
	if err := os.MkdirAll(m.imagesDir(c.ID), 0o755); err != nil {
		return nil, err
	}
	point, err := os.MkdirTemp(m.imagesDir(c.ID), "rootfs-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.unmountPoint(point) }()
	if err := mount(point); err != nil {
		return nil, err
	}
	return openFolder(point)
}

// mountReadOnly mounts a snapshot so that nothing is written to it, not even
// what overlayfs notes for itself: its upper folder becomes one of the lower.
func (m *Manager) mountReadOnly(ctx context.Context, mounts []mount.Mount, point, id string, p *podState) error {
	below, uppers := readOnly(mounts)
	if len(p.UIDs) == 0 {
		return m.deps.Mounter.Mount(ctx, withUppers(below, uppers), point)
	}
	return idmap.Mount(idmap.Request{
		Mounts: below, UserNS: m.nsPath(p.ID, namespace.User),
		UID: int(p.UIDs[0].HostID), GID: int(p.GIDs[0].HostID),
		Dir: m.imagesDir(id) + layersSuffix,
	}, func(mapped []mount.Mount) error {
		// The container's own files have their owners translated already.
		return m.deps.Mounter.Mount(ctx, withUppers(mapped, uppers), point)
	})
}

// readOnly takes the writable folders out of mounts, and returns for each
// which it was.
func readOnly(mounts []mount.Mount) (below []mount.Mount, uppers []string) {
	for _, m := range mounts {
		upper, options := "", []string{}
		for _, option := range m.Options {
			key, value, _ := strings.Cut(option, "=")
			switch {
			case key == "upperdir":
				upper = value
			case key == "workdir", option == "volatile", option == "rw":
			default:
				options = append(options, option)
			}
		}
		if !slices.Contains(options, "ro") {
			options = append(options, "ro")
		}
		m.Options = options
		below, uppers = append(below, m), append(uppers, upper)
	}
	return below, uppers
}

// withUppers puts the folders back, as the uppermost lower ones.
func withUppers(mounts []mount.Mount, uppers []string) []mount.Mount {
	out := slices.Clone(mounts)
	for i, upper := range uppers {
		if upper == "" {
			continue
		}
		out[i].Options = slices.Clone(out[i].Options)
		at := slices.IndexFunc(out[i].Options, func(o string) bool { return strings.HasPrefix(o, "lowerdir=") })
		if at < 0 {
			out[i].Options = append(out[i].Options, "lowerdir="+upper)
			continue
		}
		out[i].Options[at] = "lowerdir=" + upper + ":" + strings.TrimPrefix(out[i].Options[at], "lowerdir=")
	}
	return out
}
