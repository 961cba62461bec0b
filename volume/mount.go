package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// optionNames are what the driver takes, as docker's local one does.
var optionNames = []string{"type", "device", "o"}

// filesystems are the types that can be mounted, besides those of a network:
// those that need no program.
var filesystems = []string{"none", "bind", "tmpfs", "ext4", "ext3", "ext2", "xfs", "btrfs", "vfat", "iso9660", "erofs", "squashfs"}

// mountFlags are the options of mount(8) that are flags.
var mountFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "noexec": unix.MS_NOEXEC, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
	"strictatime": unix.MS_STRICTATIME, "sync": unix.MS_SYNCHRONOUS, "bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC,
	"rw": 0, "exec": 0, "suid": 0, "dev": 0, "async": 0,
}

// checkOptions refuses options that cannot be right.
func checkOptions(options map[string]string) error {
	for name := range options {
		if !slices.Contains(optionNames, name) {
			return fmt.Errorf("invalid option: %q: %w", name, errdefs.ErrInvalidArgument)
		}
	}
	if len(options) == 0 {
		return nil
	}
	if options["device"] == "" && options["type"] != "tmpfs" {
		return fmt.Errorf("missing required option: \"device\": %w", errdefs.ErrInvalidArgument)
	}
	kind := options["type"]
	if kind != "" && !slices.Contains(filesystems, kind) && !slices.Contains(networkFilesystems, kind) {
		return fmt.Errorf("invalid option: type %q cannot be mounted here: %w", kind, errdefs.ErrInvalidArgument)
	}
	flags, _ := mountOptions(options["o"])
	if kind == "" && flags&unix.MS_BIND == 0 {
		return fmt.Errorf("missing required option: \"type\": %w", errdefs.ErrInvalidArgument)
	}
	if flags&unix.MS_BIND != 0 && !filepath.IsAbs(options["device"]) {
		return fmt.Errorf("invalid option: device %q is not an absolute path: %w", options["device"], errdefs.ErrInvalidArgument)
	}
	return nil
}

// mountOptions splits the option "o" into flags and data.
func mountOptions(o string) (flags uintptr, data string) {
	var rest []string
	for _, option := range strings.Split(o, ",") {
		if flag, ok := mountFlags[option]; ok {
			flags |= flag
		} else if option != "" {
			rest = append(rest, option)
		}
	}
	return flags, strings.Join(rest, ",")
}

// mountRequest is what the kernel is asked for.
type mountRequest struct {
	device, target, kind, data string
	flags                      uintptr
}

// mountOf is what the kernel is asked for so that a volume's files are there.
func mountOf(v Volume, target string) mountRequest {
	m := mountRequest{device: v.Options["device"], target: target, kind: v.Options["type"]}
	m.flags, m.data = mountOptions(v.Options["o"])
	if m.kind == "none" || m.kind == "bind" || m.kind == "" {
		m.kind, m.flags = "", m.flags|unix.MS_BIND
	}
	if m.device == "" {
		m.device = "tmpfs"
	}
	return m
}

// mountNow asks the kernel.
func mountNow(m mountRequest) error {
	err := unix.Mount(m.device, m.target, m.kind, m.flags, m.data)
	if err == nil && m.flags&unix.MS_BIND != 0 && m.flags&unix.MS_RDONLY != 0 {
		err = unix.Mount("", m.target, "", unix.MS_REMOUNT|m.flags, "")
	}
	if err != nil {
		return errors.Join(err, unmountAt(m.target))
	}
	return nil
}

// secret matches the option of CIFS that nobody else is to read.
var secret = regexp.MustCompile(`(^|,)(pass|password|password2)=[^,]*`)

// failure words an error as docker does.
func (m mountRequest) failure(err error) error {
	said := fmt.Sprintf("flags: %#x", m.flags)
	if m.data != "" {
		said += ", data: " + secret.ReplaceAllString(m.data, "$1$2=********")
	}
	return fmt.Errorf("failed to mount local volume: mount %s:%s, %s: %w", m.device, m.target, said, err)
}

// Mount makes a volume's files be there, and gives their folder. Only those
// made with options need it; it may be called again. Those who want the same one
// share one attempt.
func (s *Store) Mount(ctx context.Context, name string) (string, error) {
	v, err := s.Get(name)
	if err != nil {
		return "", err
	}
	target := s.Path(name)
	if len(v.Options) == 0 {
		return target, nil
	}
	if mounted, err := isMounted(target); err != nil || mounted {
		return target, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	m, late := mountOf(v, target), "the file system does not answer"
	if isNetworked(v) {
		late = "the server does not answer"
		if m.data, err = resolveAddress(ctx, m.data); err != nil {
			return "", fmt.Errorf("error resolving passed in network volume address: %w: %w", err, errdefs.ErrUnavailable)
		}
	}
	a := s.attempt(name, m)
	select {
	case <-a.done:
		err = a.err
	case <-ctx.Done():
		err = fmt.Errorf("%s: %w", late, errdefs.ErrUnavailable)
	}
	s.leave(a)
	if err != nil {
		return "", m.failure(err)
	}
	return target, nil
}

// Use is Mount for who is about to start a container: until release is called
// the volume is neither unmounted nor removed.
func (s *Store) Use(ctx context.Context, name string) (release func(), err error) {
	s.mu.Lock()
	release = s.hold(name)
	s.mu.Unlock()
	if _, err := s.Mount(ctx, name); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// Unmount takes away what Mount mounted, unless somebody is about to use it.
// Containers that run keep theirs.
func (s *Store) Unmount(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[name] > 0 {
		return nil
	}
	return s.unmount(name)
}

// unmount is Unmount; mu is held.
func (s *Store) unmount(name string) error {
	if len(s.volumes[name].Options) == 0 {
		return nil
	}
	return unmountAt(s.Path(name))
}

// unmountAt takes away all that is mounted on a folder; nothing is no error.
func unmountAt(target string) error {
	for {
		err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
}

// isMounted says whether something is mounted on a folder. The table of mounts
// tells without asking a server.
func isMounted(target string) (bool, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(target))
	return len(mounts) > 0, err
}
