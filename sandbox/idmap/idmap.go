// Package idmap shows image layers to a user namespace with their owners
// translated, so that one copy of a layer serves all pods.
//
// It needs idmapped mounts (Linux 5.12), and overlayfs on top of them (5.19).
package idmap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Request asks for mounts to be translated.
type Request struct {
	// Mounts are what a snapshotter gives: overlays and binds.
	Mounts []mount.Mount
	// UserNS is the path of the user namespace.
	UserNS string
	// UID and GID are the host's IDs of root in it: writable layers are
	// given to them, files in them have the owners that the host sees.
	UID, GID int
	// Dir is a folder for the translated layers, made when missing, which
	// lies on a mount that propagates nowhere.
	Dir string
}

// Mount calls mountAll with mounts whose layers are translated. What was
// mounted for that is unmounted again afterwards: an overlay holds on to its
// layers by itself, and a bind is a copy.
func Mount(req Request, mountAll func([]mount.Mount) error) (err error) {
	userns, err := os.Open(req.UserNS)
	if err != nil {
		return fmt.Errorf("translate owners: %w", err)
	}
	defer userns.Close()
	if err := os.MkdirAll(req.Dir, 0o700); err != nil {
		return fmt.Errorf("translate owners: %w", err)
	}
	t := &translation{req: req, userns: int(userns.Fd())}
	defer func() { err = errors.Join(err, t.release()) }()
	var out []mount.Mount
	for _, m := range req.Mounts {
		mapped, err := t.mount(m)
		if err != nil {
			return fmt.Errorf("translate owners: %w", err)
		}
		out = append(out, mapped)
	}
	return mountAll(out)
}

// translation is one call of Mount.
type translation struct {
	req    Request
	userns int
	points []string
}

// mount translates one mount.
func (t *translation) mount(m mount.Mount) (mount.Mount, error) {
	var err error
	switch m.Type {
	case "bind", "rbind":
		if writable(m.Options) {
			// An empty layer of the container's own.
			return m, os.Chown(m.Source, t.req.UID, t.req.GID)
		}
		m.Source, err = t.layer(m.Source)
		return m, err
	case "overlay":
		options := make([]string, len(m.Options))
		for i, option := range m.Options {
			if options[i], err = t.option(option); err != nil {
				return m, err
			}
		}
		m.Options = options
		return m, nil
	}
	return m, fmt.Errorf("mount of type %q: %w", m.Type, errdefs.ErrNotImplemented)
}

func writable(options []string) bool {
	for _, option := range options {
		if option == "ro" {
			return false
		}
	}
	return true
}

// option translates an option of an overlay.
func (t *translation) option(option string) (string, error) {
	key, value, _ := strings.Cut(option, "=")
	switch key {
	case "upperdir":
		return option, os.Chown(value, t.req.UID, t.req.GID)
	case "lowerdir":
		var layers []string
		for path := range strings.SplitSeq(value, ":") {
			mapped, err := t.layer(path)
			if err != nil {
				return "", err
			}
			layers = append(layers, mapped)
		}
		return key + "=" + strings.Join(layers, ":"), nil
	}
	return option, nil
}

// layer gives a folder that shows path with owners translated.
func (t *translation) layer(path string) (string, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("clone mount of %s: %w", path, err)
	}
	defer unix.Close(tree)
	attr := &unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP,
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(t.userns),
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attr); err != nil {
		return "", fmt.Errorf("idmapped mount of %s: %w", path, err)
	}
	point := filepath.Join(t.req.Dir, strconv.Itoa(len(t.points)))
	if err := os.Mkdir(point, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	t.points = append(t.points, point)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, point, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return "", fmt.Errorf("attach mount of %s: %w", path, err)
	}
	return point, nil
}

// release unmounts the translated layers and removes their mount points.
func (t *translation) release() error {
	var errs []error
	for _, point := range t.points {
		err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
			continue
		}
		errs = append(errs, os.Remove(point))
	}
	if err := os.Remove(t.req.Dir); err != nil && len(errs) == 0 {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
