// Package netns opens pinned network namespaces and does things inside them.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// loopbackIndex is lo's in every network namespace.
const loopbackIndex = 1

// Namespace is an open network namespace, which lives at least until Close.
type Namespace struct {
	file *os.File
}

// Open opens the network namespace pinned at path. The error is of kind
// ErrNotFound when nothing is there, or a file that is no network namespace
// any more, as after a reboot.
func Open(path string) (*Namespace, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open network namespace %s: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		f.Close()
		return nil, fmt.Errorf("%s is no network namespace: %w", path, errdefs.ErrNotFound)
	}
	return &Namespace{f}, nil
}

// Current opens the calling thread's network namespace.
func Current() (*Namespace, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return Open("/proc/thread-self/ns/net")
}

// Living is path as long as the namespace pinned there lives, and empty
// afterwards, as CNI wants it.
func Living(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	n, err := Open(path)
	if errors.Is(err, errdefs.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return path, n.Close()
}

// FD is the namespace's descriptor, good until Close.
func (n *Namespace) FD() int { return int(n.file.Fd()) }

// Close lets go of the namespace.
func (n *Namespace) Close() error { return n.file.Close() }

// Do calls fn on a thread that is inside the namespace, and waits for it. fn
// must not start goroutines that expect to be inside as well.
func (n *Namespace) Do(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("open the thread's network namespace: %w", err)
			return
		}
		defer home.Close()
		if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("enter network namespace %s: %w", n.file.Name(), err)
			return
		}
		err = fn()
		// A thread that cannot get home stays locked, and so ends with this
		// goroutine.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// dumpAttempts bounds the repeating of lists that changed while they were read.
const dumpAttempts = 5

// Dump repeats a list of the kernel's that a change interrupted. The error is of
// kind ErrUnavailable when it keeps changing.
func Dump[T any](list func() ([]T, error)) ([]T, error) {
	for range dumpAttempts {
		found, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return found, err
		}
	}
	return nil, fmt.Errorf("%w: %w", netlink.ErrDumpInterrupted, errdefs.ErrUnavailable)
}

// LoopbackUp brings lo of the namespace pinned at path up.
func LoopbackUp(path string) error {
	n, err := Open(path)
	if err != nil {
		return err
	}
	defer n.Close()
	err = n.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		return h.LinkSetUp(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: loopbackIndex}})
	})
	if err != nil {
		return fmt.Errorf("bring up lo in %s: %w", path, err)
	}
	return nil
}
