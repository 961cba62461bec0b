package namespace

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// pinOwned makes a user namespace, and the others within it. The kernel lets
// only a single-threaded process into a new user namespace, so a child is
// made by clone(2). It is traced, and so stops before the first instruction
// of the program it executes: its namespaces are pinned, then it is killed,
// and nothing ever ran in it. The calling thread is the tracer.
func pinOwned(req Request, later map[string]string) error {
	flags := unix.CLONE_NEWUSER
	for _, k := range req.Kinds {
		flags |= k.flag()
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"namespaces"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{
			Cloneflags:  uintptr(flags),
			UidMappings: sysProcMappings(req.UIDs),
			GidMappings: sysProcMappings(req.GIDs),
			// Containers set supplementary groups.
			GidMappingsEnableSetgroups: true,

			Ptrace:    true,
			Pdeathsig: syscall.SIGKILL,
		},
	})
	if err != nil {
		return fmt.Errorf("make user namespace: %w", err)
	}
	defer reap(pid)
	if err := waitStopped(pid); err != nil {
		return err
	}
	kinds := append([]Kind{User}, req.Kinds...)
	for _, k := range kinds {
		source := fmt.Sprintf("/proc/%d/ns/%s", pid, k)
		if err := pinFile(source, filepath.Join(req.Dir, string(k))); err != nil {
			return err
		}
	}
	for _, k := range req.Kinds {
		if err := enter(filepath.Join(req.Dir, string(k)), k); err != nil {
			return err
		}
	}
	return req.configure(hostRoot(req.UIDs), later)
}

// waitStopped waits until the child has stopped at its execve(2).
func waitStopped(pid int) error {
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, syscall.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("wait for child in user namespace: %w", err)
		case status.Stopped():
			return nil
		default:
			return fmt.Errorf("child in user namespace ended: status %#x", int(status))
		}
	}
}

// reap kills the child and takes its status.
func reap(pid int) {
	_ = syscall.Kill(pid, syscall.SIGKILL)
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, syscall.WALL, nil)
		if errors.Is(err, syscall.EINTR) || (err == nil && status.Stopped()) {
			continue
		}
		return
	}
}

// hostRoot is the host's ID of root in a user namespace; -1 if it has none.
func hostRoot(mappings []Mapping) int {
	for _, m := range mappings {
		if m.ContainerID == 0 && m.Length > 0 {
			return int(m.HostID)
		}
	}
	return -1
}
