package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// oldestKernel is the oldest Linux this program is made for.
const oldestKernel = "5.10"

// preflight refuses to start where nothing could work, naming what is missing.
func preflight(cfg Config) error {
	if os.Geteuid() != 0 {
		return errors.New("must be run as root: namespaces, mounts and cgroups need it")
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("ask the kernel for its version: %w", err)
	}
	release := unix.ByteSliceToString(uts.Release[:])
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n == 2 && (major < 5 || major == 5 && minor < 10) {
		return fmt.Errorf("Linux %s is too old: %s or newer is needed", release, oldestKernel)
	}
	supervisor, err := cfg.supervisorBinary()
	if err != nil {
		return err
	}
	if _, err := os.Stat(supervisor); err != nil {
		return fmt.Errorf("find nodesupervisor: %w", err)
	}
	return nil
}
