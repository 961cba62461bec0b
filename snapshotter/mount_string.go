package snapshotter

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOverlayString mounts with mount(2), for Linux before 6.7. The kernel
// takes one page of options: more layers than fit are named relative to the
// snapshots' root, from a thread that has gone there.
func mountOverlayString(o options, target string) error {
	flags := o.mountFlags()
	data := o.overlayData(o.lowers)
	if len(data) < os.Getpagesize() {
		return mountData(target, flags, data)
	}
	base := commonDir(o.lowers)
	lowers := make([]string, len(o.lowers))
	for i, lower := range o.lowers {
		lowers[i] = strings.TrimPrefix(lower, base+"/")
	}
	data = o.overlayData(lowers)
	if len(data) >= os.Getpagesize() {
		return fmt.Errorf("%d layers do not fit: %w", len(lowers), unix.E2BIG)
	}
	done := make(chan error, 1)
	go func() {
		// The thread has a working directory of its own from here on, so it
		// must not serve others: ending while locked ends it.
		runtime.LockOSThread()
		err := enter(base)
		if err == nil {
			err = mountData(target, flags, data)
		}
		done <- err
	}()
	return <-done
}

func enter(dir string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return unix.Chdir(dir)
}

func mountData(target string, flags uintptr, data string) error {
	if err := unix.Mount("overlay", target, "overlay", flags, data); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return nil
}

// commonDir is the deepest directory that all paths are below.
func commonDir(paths []string) string {
	dir := filepath.Dir(paths[0])
	for _, p := range paths[1:] {
		for !strings.HasPrefix(p, dir+"/") && dir != "/" {
			dir = filepath.Dir(dir)
		}
	}
	return strings.TrimSuffix(dir, "/")
}
