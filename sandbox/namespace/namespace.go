// Package namespace makes namespaces that no process lives in: they are kept
// by bind mounts of their files ("pins") and joined by path.
//
// Whatever is done inside a namespace is done by an operating system thread
// that is thrown away afterwards, so that no other part of the program can
// ever find itself in the wrong one.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kind is a kind of namespace, by its name in /proc/PID/ns.
type Kind string

// The kinds that can be pinned.
const (
	Net  Kind = "net"
	IPC  Kind = "ipc"
	UTS  Kind = "uts"
	User Kind = "user"
	PID  Kind = "pid"
)

// flag is the kind's bit in clone(2).
func (k Kind) flag() int {
	switch k {
	case Net:
		return unix.CLONE_NEWNET
	case IPC:
		return unix.CLONE_NEWIPC
	case UTS:
		return unix.CLONE_NEWUTS
	}
	return 0
}

// Mapping is one line of a user namespace's uid_map or gid_map.
type Mapping struct {
	ContainerID, HostID, Length uint32
}

// Request asks for a pod's namespaces.
type Request struct {
	// Dir is where the pins are put, a file for each kind; it is made when
	// missing, and must lie on a mount that propagates nowhere.
	Dir string
	// Kinds are those to make: Net, IPC and UTS.
	Kinds []Kind
	// UIDs and GIDs, when not empty, make a user namespace with these
	// mappings, which owns the others.
	UIDs, GIDs []Mapping
	// Hostname is set in the UTS namespace; empty keeps the host's.
	Hostname string
	// Domainname is the NIS domain name of the UTS namespace; empty keeps
	// the host's.
	Domainname string
	// Sysctls are written in the new namespaces.
	Sysctls map[string]string
}

// Pin makes the namespaces asked for. It returns those sysctls of network
// interfaces that do not exist yet: Sysctls writes them later. On an error
// pins may be left, for Unpin to remove.
func Pin(ctx context.Context, req Request) (later map[string]string, err error) {
	if err := os.MkdirAll(req.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("pin namespaces: %w", err)
	}
	later = map[string]string{}
	err = onThread(ctx, func() error {
		if len(req.UIDs) > 0 {
			return pinOwned(req, later)
		}
		var flags int
		for _, k := range req.Kinds {
			flags |= k.flag()
		}
		if err := unix.Unshare(flags); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := req.configure(-1, later); err != nil {
			return err
		}
		for _, k := range req.Kinds {
			if err := pinFile("/proc/thread-self/ns/"+string(k), filepath.Join(req.Dir, string(k))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("pin namespaces in %s: %w", req.Dir, err)
	}
	return later, nil
}

// configure sets the names and values of the namespaces the calling thread
// is in. owner is the host's ID of the owning user namespace's root, -1 for
// the host's own.
func (req Request) configure(owner int, later map[string]string) error {
	if slices.Contains(req.Kinds, UTS) && req.Hostname != "" {
		if err := unix.Sethostname([]byte(req.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", req.Hostname, err)
		}
	}
	if slices.Contains(req.Kinds, UTS) && req.Domainname != "" {
		if err := unix.Setdomainname([]byte(req.Domainname)); err != nil {
			return fmt.Errorf("set domain name %q: %w", req.Domainname, err)
		}
	}
	return writeSysctls(req.Sysctls, req.Kinds, owner, later)
}

// PinPID pins the PID namespace of a process.
func PinPID(dir string, pid int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("pin PID namespace: %w", err)
	}
	return pinFile(fmt.Sprintf("/proc/%d/ns/pid", pid), filepath.Join(dir, string(PID)))
}

// pinFile binds a namespace file onto target.
func pinFile(source, target string) error {
	f, err := os.OpenFile(target, os.O_RDONLY|os.O_CREATE, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", source, target, err)
	}
	return nil
}

// Unpin removes all pins in dir, and dir itself. The namespaces go with their
// last process. A missing dir is no error.
func Unpin(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unpin namespaces: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if err := Unmount(path); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("unpin namespace: %w", err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin namespaces: %w", err)
	}
	return nil
}

// Unmount detaches everything mounted on path, following no symbolic link.
// Nothing mounted there, or no such path, is no error.
func Unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		default:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// nsfsMagic is the file system type of namespace files (linux/magic.h).
const nsfsMagic = 0x6e736673

// Pinned reports whether path is a namespace.
func Pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && int64(st.Type) == nsfsMagic
}

// Run calls fn on a thread of its own in the namespace at path. What fn opens
// stays in that namespace; fn must not start goroutines that rely on it.
func Run(ctx context.Context, path string, kind Kind, fn func() error) error {
	return onThread(ctx, func() error {
		if err := enter(path, kind); err != nil {
			return err
		}
		return fn()
	})
}

// enter moves the calling thread.
func enter(path string, kind Kind) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, kind.flag()); err != nil {
		return fmt.Errorf("enter namespace %s: %w", path, err)
	}
	return nil
}

// Sysctls writes network sysctls in the pinned namespace at path. The kernel
// lets the host's root do so whoever owns the namespace.
func Sysctls(ctx context.Context, path string, values map[string]string) error {
	return Run(ctx, path, Net, func() error { return writeSysctls(values, []Kind{Net}, -1, nil) })
}

// onThread runs fn on an operating system thread that is thrown away, and
// returns when fn has. ctx is looked at before, not during.
func onThread(ctx context.Context, fn func() error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	done := make(chan error, 1)
	go threadMain(fn, done)
	return <-done
}

// threadMain never unlocks its thread, so the runtime ends it. The first
// thread of a process cannot be ended, and /proc/self speaks of it: it is
// held back while another goroutine gets another thread.
func threadMain(fn func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		done <- fn()
		return
	}
	inner := make(chan error)
	go threadMain(fn, inner)
	err := <-inner
	runtime.UnlockOSThread()
	done <- err
}

// PrepareRoot makes dir a mount of its own that propagates nowhere. Done
// already, it does nothing.
func PrepareRoot(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("prepare %s: %w", dir, err)
	}
	mounted, err := isMountRoot(dir)
	if err != nil {
		return fmt.Errorf("prepare %s: %w", dir, err)
	}
	if !mounted {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s on itself: %w", dir, err)
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", dir, err)
	}
	return nil
}

// ReleaseRoot undoes PrepareRoot when dir is empty; otherwise it leaves all
// as it is.
func ReleaseRoot(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		return nil
	}
	return Unmount(dir)
}

// isMountRoot says whether something is mounted at path (statx(2)'s
// STATX_ATTR_MOUNT_ROOT, Linux 5.8).
func isMountRoot(path string) (bool, error) {
	var stx unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &stx)
	if err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	return stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// sysProcMappings turns mappings into what os/exec wants.
func sysProcMappings(mappings []Mapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(mappings))
	for i, m := range mappings {
		out[i] = syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Length)}
	}
	return out
}
