package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Mount mounts what Prepare, View or Mounts returned at target, an existing
// directory, which must not be a symbolic link. It knows overlay and bind
// mounts. It uses the mount API of Linux 5.2, with each lower layer given by
// itself where the kernel knows that (6.7), so that some hundred layers
// work, and mount(2) where it does not. Nothing is mounted when it fails.
func Mount(ctx context.Context, mounts []mount.Mount, target string) error {
	for i, m := range mounts {
		err := ctx.Err()
		if err == nil {
			err = mountOne(m, target)
		}
		if err != nil {
			for range i {
				_ = unix.Unmount(target, unix.MNT_DETACH)
			}
			return fmt.Errorf("mount %s at %s: %w", m.Type, target, err)
		}
	}
	return nil
}

// Unmount takes the topmost mount away from target, lazily: what still uses
// it keeps it. A target without a mount, or that is not there, is not an
// error.
func Unmount(target string) error {
	err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	switch {
	case err == nil, errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil
	}
	return fmt.Errorf("unmount %s: %w", target, err)
}

func mountOne(m mount.Mount, target string) error {
	opts, err := parseOptions(m.Options)
	if err != nil {
		return err
	}
	switch m.Type {
	case "overlay":
		err = mountOverlay(opts, target)
		if errors.Is(err, errOldKernel) {
			err = mountOverlayString(opts, target)
		}
		return err
	case "bind":
		err = mountBind(m.Source, opts, target)
		if errors.Is(err, unix.ENOSYS) {
			err = mountBindString(m.Source, opts, target)
		}
		return err
	}
	return fmt.Errorf("unknown type: %w", errdefs.ErrInvalidArgument)
}

// errOldKernel asks for the older way of mounting.
var errOldKernel = errors.New("the kernel does not know this mount option")

// options are mount options taken apart.
type options struct {
	// attrs are MOUNT_ATTR_ bits.
	attrs uint64
	// lowers are the lower layers, the topmost first.
	lowers []string
	// recursive says rbind in place of bind.
	recursive bool
	// other are those for the filesystem: "key=value" or "flag".
	other []string
}

// attributes are those options that belong to a mount and not to a
// filesystem.
var attributes = map[string]uint64{
	"ro":         unix.MOUNT_ATTR_RDONLY,
	"nosuid":     unix.MOUNT_ATTR_NOSUID,
	"nodev":      unix.MOUNT_ATTR_NODEV,
	"noexec":     unix.MOUNT_ATTR_NOEXEC,
	"noatime":    unix.MOUNT_ATTR_NOATIME,
	"nodiratime": unix.MOUNT_ATTR_NODIRATIME,
}

func parseOptions(list []string) (options, error) {
	var o options
	for _, opt := range list {
		key, value, hasValue := strings.Cut(opt, "=")
		attr, isAttr := attributes[opt]
		switch {
		case isAttr:
			o.attrs |= attr
		case opt == "rw", opt == "bind", opt == "":
		case opt == "rbind":
			o.recursive = true
		case key == "lowerdir" && hasValue:
			o.lowers = append(o.lowers, strings.Split(value, ":")...)
		case key == "uidmap", key == "gidmap":
			return o, fmt.Errorf("option %s: %w", opt, errdefs.ErrNotImplemented)
		default:
			o.other = append(o.other, opt)
		}
	}
	return o, nil
}

// mountOverlay mounts with fsopen(2) and its kin.
func mountOverlay(o options, target string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return oldKernel("fsopen", err)
	}
	defer unix.Close(fs)
	// The mount would be shown without a source otherwise.
	if err := unix.FsconfigSetString(fs, "source", "overlay"); err != nil {
		return oldKernel("fsconfig source", err)
	}
	for _, lower := range o.lowers {
		if err := unix.FsconfigSetString(fs, "lowerdir+", lower); err != nil {
			return configError(fs, "option lowerdir+", err)
		}
	}
	for _, opt := range o.other {
		key, value, hasValue := strings.Cut(opt, "=")
		if hasValue {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return configError(fs, "option "+opt, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		// Kernels before 6.5 take every option and refuse only here.
		return configError(fs, "create overlay", err)
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(o.attrs))
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(tree)
	return moveMount(tree, target)
}

// oldKernel marks errors that a kernel without the call or option gives.
func oldKernel(call string, err error) error {
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%s: %w: %w", call, err, errOldKernel)
	}
	return os.NewSyscallError(call, err)
}

// configError is for what was refused. EINVAL may mean that the
// kernel does not know lowerdir+, or takes no longer value than 256 bytes.
func configError(fs int, what string, err error) error {
	text := kernelLog(fs)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%s: %w%s: %w", what, err, text, errOldKernel)
	}
	return fmt.Errorf("%s: %w%s", what, err, text)
}

// kernelLog is what the kernel has to say about a filesystem context.
func kernelLog(fs int) string {
	var text strings.Builder
	buf := make([]byte, 1024)
	// The kernel keeps at most eight messages.
	for range 8 {
		n, err := unix.Read(fs, buf)
		if err != nil || n <= 0 {
			break
		}
		text.WriteString(": " + strings.TrimSpace(string(buf[:n])))
	}
	return text.String()
}

func moveMount(tree int, target string) error {
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	return nil
}

func mountBind(source string, o options, target string) error {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if o.recursive {
		flags |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, flags)
	if err != nil {
		return fmt.Errorf("open_tree %s: %w", source, err)
	}
	defer unix.Close(tree)
	if o.attrs != 0 {
		set := unix.AT_EMPTY_PATH
		if o.recursive {
			set |= unix.AT_RECURSIVE
		}
		err := unix.MountSetattr(tree, "", uint(set), &unix.MountAttr{Attr_set: o.attrs})
		if err != nil {
			return os.NewSyscallError("mount_setattr", err)
		}
	}
	return moveMount(tree, target)
}

// mountFlags translates attributes for mount(2).
func (o options) mountFlags() uintptr {
	var flags uintptr
	for attr, flag := range map[uint64]uintptr{
		unix.MOUNT_ATTR_RDONLY:     unix.MS_RDONLY,
		unix.MOUNT_ATTR_NOSUID:     unix.MS_NOSUID,
		unix.MOUNT_ATTR_NODEV:      unix.MS_NODEV,
		unix.MOUNT_ATTR_NOEXEC:     unix.MS_NOEXEC,
		unix.MOUNT_ATTR_NOATIME:    unix.MS_NOATIME,
		unix.MOUNT_ATTR_NODIRATIME: unix.MS_NODIRATIME,
	} {
		if o.attrs&attr != 0 {
			flags |= flag
		}
	}
	return flags
}

// mountBindString binds with mount(2), for Linux before 5.12.
func mountBindString(source string, o options, target string) error {
	var rec uintptr
	if o.recursive {
		rec = unix.MS_REC
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|rec, ""); err != nil {
		return fmt.Errorf("bind %s: %w", source, err)
	}
	if o.attrs == 0 {
		return nil
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|o.mountFlags(), ""); err != nil {
		_ = unix.Unmount(target, unix.MNT_DETACH)
		return fmt.Errorf("bind %s with its flags: %w", source, err)
	}
	return nil
}

// overlayData is the option string of mount(2), where colons, commas and
// backslashes in paths are escaped.
func (o options) overlayData(lowers []string) string {
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`)
	escaped := slices.Clone(lowers)
	for i := range escaped {
		escaped[i] = escape.Replace(escaped[i])
	}
	return strings.Join(append(slices.Clone(o.other), "lowerdir="+strings.Join(escaped, ":")), ",")
}
