package namespace

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/sandbox/spec"
)

// sysctlPath turns a name into the kind of namespace it belongs to and the
// path below /proc/sys.
func sysctlPath(name string) (Kind, string, error) {
	bad := func(why string) (Kind, string, error) {
		return "", "", fmt.Errorf("sysctl %q: %s: %w", name, why, errdefs.ErrInvalidArgument)
	}
	if len(name) > 255 {
		return bad("name too long")
	}
	path := spec.SysctlPath(name) // what was checked is what is written
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return bad("not a sysctl name")
		}
		if strings.ContainsFunc(part, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '=' }) {
			return bad("not a sysctl name")
		}
	}
	switch {
	case strings.HasPrefix(path, "net/"):
		return Net, path, nil
	case strings.HasPrefix(path, "kernel/shm"), strings.HasPrefix(path, "kernel/msg"),
		path == "kernel/sem", strings.HasPrefix(path, "fs/mqueue/"):
		return IPC, path, nil
	}
	return bad("not a sysctl of a namespace")
}

// writeSysctls writes values in the namespaces the calling thread is in. They
// were checked before; what belongs to a namespace that is not among own would
// change the host, and is refused here too. Those of network interfaces that
// are not there go to later, unless it is nil. owner is the host's ID of the
// owning user namespace's root, or -1.
func writeSysctls(values map[string]string, own []Kind, owner int, later map[string]string) error {
	if len(values) == 0 {
		return nil
	}
	root, err := unix.Open("/proc/sys", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /proc/sys: %w", err)
	}
	defer unix.Close(root)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		kind, path, err := sysctlPath(name)
		if err != nil {
			return err
		}
		if !slices.Contains(own, kind) {
			return fmt.Errorf("sysctl %q: the pod uses the host's %s namespace: %w", name, kind, errdefs.ErrInvalidArgument)
		}
		err = writeSysctl(root, path, values[name], owner)
		if errors.Is(err, unix.ENOENT) && kind == Net && later != nil && strings.Count(path, "/") > 3 {
			later[name] = values[name]
			continue
		}
		if err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", name, values[name], err)
		}
	}
	return nil
}

// writeSysctl opens the file without leaving /proc/sys and writes it. The
// kernel lets only the owning namespace's root write IPC sysctls, whatever
// capabilities others have, so the thread is that user for a moment when it
// must.
func writeSysctl(root int, path, value string, owner int) error {
	err := writeBelow(root, path, value)
	if !errors.Is(err, unix.EACCES) || owner < 0 {
		return err
	}
	if err := setEffectiveUID(owner); err != nil {
		return err
	}
	err = writeBelow(root, path, value)
	return errors.Join(err, setEffectiveUID(0))
}

// writeBelow writes a file below the directory root.
func writeBelow(root int, path, value string) error {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_WRONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

// setEffectiveUID changes the calling thread alone.
func setEffectiveUID(uid int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
		return fmt.Errorf("set effective user %d: %w", uid, errno)
	}
	return nil
}
