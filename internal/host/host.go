// Package host finds out what this machine's kernel offers, once at start.
// Nothing here changes the machine.
package host

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"
)

// Features is what the kernel offers and has switched on.
type Features struct {
	// Kernel is uname's release.
	Kernel string
	// Major and Minor are its version.
	Major, Minor int
	// AppArmor and SELinux are on.
	AppArmor, SELinux bool
	// Seccomp can filter system calls (CONFIG_SECCOMP_FILTER).
	Seccomp bool
	// RecursiveReadOnly and IDMap are mount_setattr(2), Linux 5.12.
	RecursiveReadOnly, IDMap bool
	// UserNamespaces may be made.
	UserNamespaces bool
	// Swap is accounted to cgroups.
	Swap bool
	// HugeTLB is a cgroup controller here.
	HugeTLB bool
	// Capabilities are all the kernel knows, such as "CAP_CHOWN".
	Capabilities []string
}

// Detect reads the machine's /proc and /sys. cgroupRoot is where cgroups are
// mounted, usually /sys/fs/cgroup.
func Detect(cgroupRoot string) (Features, error) {
	var f Features
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return f, fmt.Errorf("ask the kernel for its version: %w", err)
	}
	f.Kernel = unix.ByteSliceToString(uts.Release[:])
	if _, err := fmt.Sscanf(f.Kernel, "%d.%d", &f.Major, &f.Minor); err != nil {
		return f, fmt.Errorf("read kernel version %q: %w", f.Kernel, err)
	}
	f.AppArmor = appArmor()
	f.SELinux = selinux.GetEnabled()
	f.Seccomp = seccomp()
	f.RecursiveReadOnly = f.atLeast(5, 12)
	f.IDMap = f.atLeast(5, 12)
	f.UserNamespaces = userNamespaces()
	f.Swap = swap(cgroupRoot, "/proc")
	f.HugeTLB = hasController(cgroupRoot, "hugetlb")
	last, err := capability.ListSupported()
	if err != nil {
		return f, fmt.Errorf("list capabilities: %w", err)
	}
	for _, c := range last {
		f.Capabilities = append(f.Capabilities, "CAP_"+strings.ToUpper(c.String()))
	}
	return f, nil
}

func (f Features) atLeast(major, minor int) bool {
	return f.Major > major || f.Major == major && f.Minor >= minor
}

func appArmor() bool {
	on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && bytes.HasPrefix(on, []byte("Y")) && exists("/sys/kernel/security", "apparmor")
}

// seccomp asks for a filter at an address that cannot be read: EFAULT means
// that filters are known (seccomp(2)).
func seccomp() bool {
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0) == unix.EFAULT
}

func userNamespaces() bool {
	raw, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	return err == nil && n > 0
}

// hasController tells whether containers' cgroups can have a controller: one
// that is mounted on v1, or offered at the root of v2. In hybrid mode the v2
// tree beside does not count: libcontainer limits on v1 alone there.
func hasController(cgroupRoot, name string) bool {
	if exists(cgroupRoot, name) {
		return true
	}
	offered, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(offered)), name)
}

// swap tells whether the kernel counts what cgroups have swapped out. On v2 the root has no file that would tell, and
// there may be no cgroup with memory limits yet: then it does unless it was built without swap or told not to at boot.
func swap(cgroupRoot, proc string) bool {
	if !exists(cgroupRoot, "cgroup.controllers") {
		return exists(cgroupRoot, "memory/memory.memsw.limit_in_bytes")
	}
	if limited, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "memory.max")); err == nil && len(limited) > 0 {
		return exists(filepath.Dir(limited[0]), "memory.swap.max")
	}
	boot, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	return err == nil && exists(proc, "swaps") && !slices.Contains(strings.Fields(string(boot)), "swapaccount=0")
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}
