package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/nodeagent/nodeagent/sandbox/idmap"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
)

// ErrImageVolume is in the error of a container whose image mount failed,
// which kubelet wants to tell from others.
var ErrImageVolume = errors.New("mount image volume")

func (m *Manager) rootfsDir(id string) string { return filepath.Join(m.containerDir(id), "rootfs") }

func (m *Manager) imagesDir(id string) string { return filepath.Join(m.containerDir(id), "images") }

// makeContainerDir makes the container's folder, as far as it is missing. Only
// root may enter it, which in a user namespace is another.
func (m *Manager) makeContainerDir(id string, p *podState) error {
	dir := m.containerDir(id)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Mkdir(m.rootfsDir(id), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if len(p.UIDs) > 0 {
		return os.Chown(dir, int(p.UIDs[0].HostID), int(p.GIDs[0].HostID))
	}
	return nil
}

// removeContainerDir unmounts all that is mounted in the container's folder,
// and removes it. It never removes anything below a mount point.
func (m *Manager) removeContainerDir(id string) error {
	if err := m.unmountContainer(id); err != nil {
		return err
	}
	if err := os.RemoveAll(m.containerDir(id)); err != nil {
		return fmt.Errorf("remove folder of container %s: %w", id, err)
	}
	return nil
}

// unmountContainer unmounts root filesystem and image mounts and removes
// their mount points. It is idempotent.
func (m *Manager) unmountContainer(id string) error {
	for _, dir := range []string{m.imagesDir(id), m.rootfsDir(id)} {
		if err := m.unmountBelow(dir + layersSuffix); err != nil {
			return fmt.Errorf("unmount container %s: %w", id, err)
		}
	}
	if err := m.unmountBelow(m.imagesDir(id)); err != nil {
		return fmt.Errorf("unmount container %s: %w", id, err)
	}
	if err := m.unmountPoint(m.rootfsDir(id)); err != nil {
		return fmt.Errorf("unmount container %s: %w", id, err)
	}
	return nil
}

// layersSuffix is that of folders that package idmap works in.
const layersSuffix = "-layers"

// unmountBelow unmounts what is mounted on the entries of a folder.
func (m *Manager) unmountBelow(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if err := m.unmountPoint(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// unmountPoint unmounts a folder and removes it, and nothing below it.
func (m *Manager) unmountPoint(point string) error {
	if err := m.deps.Mounter.Unmount(point); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Remove(point); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// mountRootfs mounts the container's snapshot, or the folder in its place.
func (m *Manager) mountRootfs(ctx context.Context, c *containerState, p *podState) error {
	if c.Folder != "" {
		return m.bindFolder(c, p, idmap.BindRequest{Target: m.rootfsDir(c.ID), Below: true})
	}
	mounts, err := m.deps.Snapshots.Mounts(ctx, c.SnapshotKey)
	if err != nil {
		return err
	}
	return m.mountMapped(ctx, mounts, m.rootfsDir(c.ID), m.rootfsDir(c.ID), p)
}

// bindFolder shows the folder that is a container's root filesystem at another
// place, as the pod's user namespace shall see it.
func (m *Manager) bindFolder(c *containerState, p *podState, req idmap.BindRequest) error {
	req.Source = c.Folder
	if len(p.UIDs) > 0 {
		req.UserNS = m.nsPath(p.ID, namespace.User)
	}
	if err := idmap.Bind(req); err != nil {
		return fmt.Errorf("root filesystem %s: %w", c.Folder, err)
	}
	return nil
}

// resolveMounts finds the sources of the configuration's mounts on the host,
// and mounts the images among them.
func (m *Manager) resolveMounts(ctx context.Context, c *containerState, p *podState) error {
	c.Mounts = nil
	for i, in := range c.Config.GetMounts() {
		out := proto.CloneOf(in)
		var err error
		if in.GetImage().GetImage() != "" {
			if out.HostPath, out.Image.ImageRef, err = m.mountImage(ctx, c, p, i); err != nil {
				err = fmt.Errorf("%w on %s: %w", ErrImageVolume, in.GetContainerPath(), err)
			}
		} else {
			out.HostPath, err = resolveSource(fmt.Sprintf("mounts[%d].", i), in)
		}
		if err != nil {
			return err
		}
		c.Mounts = append(c.Mounts, out)
	}
	return nil
}

// mountImage mounts an image's files read-only, and gives the path of what is
// asked for of them, and the image's ID.
func (m *Manager) mountImage(ctx context.Context, c *containerState, p *podState, i int) (source, id string, err error) {
	mt := c.Config.GetMounts()[i]
	image, err := m.deps.Images.ResolveImage(ctx, mt.GetImage().GetImage())
	if err != nil {
		return "", "", fmt.Errorf("mounts[%d].image.image: %w", i, err)
	}
	key := c.ID + "-image-" + strconv.Itoa(i)
	in, err := m.deps.Images.Unpack(ctx, image.ID, p.Handler)
	if err != nil {
		return "", "", err
	}
	mounts, err := m.deps.Snapshots.View(ctx, key, image.ChainID,
		snapshots.WithLabels(map[string]string{labelContainer: c.ID}), in)
	if err != nil {
		return "", "", err
	}
	c.Views = append(c.Views, key)
	target := filepath.Join(m.imagesDir(c.ID), strconv.Itoa(i))
	if err := os.MkdirAll(target, 0o755); err != nil {
		return "", "", err
	}
	if err := m.mountMapped(ctx, mounts, target, m.imagesDir(c.ID), p); err != nil {
		return "", "", err
	}
	if mt.GetImageSubPath() == "" {
		return target, image.ID, nil
	}
	if source, err = subPath(target, mt.GetImageSubPath()); err != nil {
		return "", "", fmt.Errorf("mounts[%d].image_sub_path: %w", i, err)
	}
	return source, image.ID, nil
}

// subPath finds a path within an image, whose links do not lead out of it.
func subPath(root, name string) (string, error) {
	handle, err := pathrs.OpenInRoot(root, name)
	for _, absent := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP} {
		if errors.Is(err, absent) {
			return "", fmt.Errorf("%.300q is not in the image: %w", name, errdefs.ErrInvalidArgument)
		}
	}
	if err != nil {
		return "", err
	}
	defer handle.Close()
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", handle.Fd()))
}

// removeViews removes the snapshots of the container's image mounts, which
// are unmounted first.
func (m *Manager) removeViews(ctx context.Context, c *containerState) error {
	if err := m.unmountContainer(c.ID); err != nil {
		return err
	}
	for _, key := range c.Views {
		if err := ignoreNotFound(m.deps.Snapshots.Remove(ctx, key)); err != nil {
			return fmt.Errorf("remove snapshot %s: %w", key, err)
		}
	}
	return nil
}

// mountMapped mounts a snapshot as the pod's user namespace shall see it;
// work names the folder to do so in.
func (m *Manager) mountMapped(ctx context.Context, mounts []mount.Mount, target, work string, p *podState) error {
	if len(p.UIDs) == 0 {
		return m.deps.Mounter.Mount(ctx, mounts, target)
	}
	return idmap.Mount(idmap.Request{
		Mounts: mounts, UserNS: m.nsPath(p.ID, namespace.User),
		UID: int(p.UIDs[0].HostID), GID: int(p.GIDs[0].HostID),
		Dir: work + layersSuffix,
	}, func(mapped []mount.Mount) error {
		return m.deps.Mounter.Mount(ctx, mapped, target)
	})
}
