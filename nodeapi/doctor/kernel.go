package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// kernel looks at its version.
func (h Host) kernel(_ context.Context, r *report) {
	release, err := h.read("/proc/sys/kernel/osrelease")
	if err != nil {
		r.add(Problem, "mount -t proc proc /proc", "cannot read the kernel's version: %v", err)
		return
	}
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		r.add(Warning, "", "the kernel calls itself %q, which is no version", release)
		return
	}
	at := func(a, b int) bool { return major > a || major == a && minor >= b }
	switch {
	case !at(5, 10):
		r.add(Problem, "install Linux 5.10 or newer", "Linux %s is too old: 5.10 is the oldest that works", release)
	case !at(5, 12):
		r.add(Note, "", "Linux %s has no mount_setattr: no user namespaces for pods, and no recursive read-only mounts", release)
	case !at(6, 15):
		r.add(Note, "", "Linux %s does not tell how a process ended that is nobody's child: an exit while no supervisor runs is taken for a failure", release)
	default:
		r.ok("Linux %s has all that is used", release)
	}
}

// features looks for file systems and subsystems that pods are made with.
func (h Host) features(_ context.Context, r *report) {
	known, err := h.read("/proc/filesystems")
	if err != nil {
		r.add(Problem, "mount -t proc proc /proc", "cannot list file systems: %v", err)
		return
	}
	for _, system := range []struct {
		name, what string
		level      Level
	}{
		{"overlay", "containers cannot have a root file system", Problem},
		{"tmpfs", "pods cannot have /dev/shm", Problem},
		{"mqueue", "containers have no /dev/mqueue", Warning},
		{"erofs", "the erofs snapshotter cannot be used; overlay can", Note},
	} {
		if hasFilesystem(known, system.name) {
			continue
		}
		f := r.add(system.level, "modprobe "+system.name, "the kernel knows no %s: %s", system.name, system.what)
		f.Fix = h.modprobe(system.name)
	}
	for _, kind := range []string{"net", "ipc", "uts", "pid", "mnt"} {
		if !h.exists("/proc/self/ns/" + kind) {
			r.add(Problem, "use a kernel with CONFIG_NAMESPACES", "the kernel has no %s namespaces", kind)
		}
	}
	if n, ok := h.number("/proc/sys/user/max_user_namespaces"); !ok || n == 0 {
		r.add(Note, "sysctl -w user.max_user_namespaces=15000", "user namespaces are off: pods with hostUsers: false cannot run")
	}
	if len(r.findings) == 0 {
		r.ok("overlay, erofs, mqueue, namespaces")
	}
}

func hasFilesystem(known, name string) bool {
	for line := range strings.Lines(known) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == name {
			return true
		}
	}
	return false
}

// modprobe loads a module by the host's own program; nil where there is none.
func (h Host) modprobe(name string) func(context.Context) error {
	program, err := h.LookPath("modprobe")
	if err != nil {
		return nil
	}
	return func(ctx context.Context) error { return runProgram(ctx, program, name) }
}

// controllers are those that limits need.
var controllers = []string{"cpu", "cpuset", "memory", "pids"}

// cgroups looks for the controllers, and that nothing of them is off.
func (h Host) cgroups(_ context.Context, r *report) {
	var fs unix.Statfs_t
	if err := h.Statfs(h.path("/sys/fs/cgroup"), &fs); err != nil {
		r.add(Problem, "mount -t cgroup2 cgroup2 /sys/fs/cgroup", "cgroups are not mounted: %v", err)
		return
	}
	v2 := fs.Type == unix.CGROUP2_SUPER_MAGIC
	var missing []string
	if v2 {
		offered, _ := h.read("/sys/fs/cgroup/cgroup.controllers")
		for _, name := range controllers {
			if !slices.Contains(strings.Fields(offered), name) {
				missing = append(missing, name)
			}
		}
	} else {
		for _, name := range controllers {
			if !h.exists("/sys/fs/cgroup/"+name) && !h.exists("/sys/fs/cgroup/"+name+","+name+"acct") {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		remedy := "remove cgroup_disable= from the kernel's command line"
		r.add(Problem, remedy, "controllers are missing, so limits of theirs cannot be set: %s", strings.Join(missing, ", "))
	}
	if h.CgroupDriver == "systemd" && !h.exists("/run/systemd/system") {
		r.add(Problem, `set cgroup_driver = "cgroupfs" in /etc/nodeagent/config.toml, and in kubelet`, "the cgroup driver is systemd, and systemd does not run here")
	}
	if h.CgroupDriver == "cgroupfs" && h.exists("/run/systemd/system") {
		r.add(Note, `set cgroup_driver = "systemd", if kubelet's cgroupDriver is systemd`, "systemd runs here, and the cgroup driver is cgroupfs: both write cgroups")
	}
	if len(r.findings) == 0 {
		version := "v1"
		if v2 {
			version = "v2"
		}
		r.ok("%s with %s", version, strings.Join(controllers, ", "))
	}
}

// security looks at AppArmor, SELinux and seccomp.
func (h Host) security(_ context.Context, r *report) {
	on, _ := h.read("/sys/module/apparmor/parameters/enabled")
	if strings.HasPrefix(on, "Y") {
		if _, err := h.LookPath("apparmor_parser"); err != nil {
			r.add(Warning, "apt-get install apparmor", "AppArmor is on, and apparmor_parser is missing: containers run without a profile")
		} else {
			r.ok("AppArmor is on")
		}
	}
	if enforcing, ok := h.number("/sys/fs/selinux/enforce"); ok {
		if h.exists("/etc/selinux") {
			r.ok("SELinux is on, enforcing %d", enforcing)
		} else {
			r.add(Warning, "install the container-selinux package", "SELinux is on, and no policy is installed")
		}
	}
	actions, err := h.read("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil || !strings.Contains(actions, "errno") {
		r.add(Warning, "use a kernel with CONFIG_SECCOMP_FILTER", "seccomp is missing: containers may make every system call")
	}
	if len(r.findings) == 0 {
		r.ok("seccomp; neither AppArmor nor SELinux is on")
	}
}

// criu tells whether containers can be checkpointed.
func (h Host) criu(_ context.Context, r *report) {
	path, err := h.LookPath("criu")
	if err != nil {
		r.add(Note, "apt-get install criu", "CRIU is not installed: containers cannot be checkpointed")
		return
	}
	r.ok("%s", path)
}

// socket looks at who may connect to the agent, or make others connect to what is
// not the agent.
func (h Host) socket(_ context.Context, r *report) {
	if h.Socket == "" {
		return
	}
	info, err := os.Lstat(h.Socket)
	if err != nil {
		r.add(Warning, "restart nodeagent", "the socket is gone, and only who is connected already can talk to the agent: %v", err)
		return
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		f := r.add(Problem, fmt.Sprintf("chmod 600 %s", h.Socket), "%s has mode %04o: whoever can connect is root on this machine", h.Socket, mode)
		f.Fix = func(context.Context) error { return os.Chmod(h.Socket, 0o600) }
	}
	if owner := ownerOf(info); owner != os.Getuid() {
		r.add(Problem, "chown root: "+h.Socket, "%s belongs to user %d, who may connect and so is root on this machine", h.Socket, owner)
	}
	for dir := filepath.Dir(h.Socket); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			continue
		}
		if info.Mode().Perm()&0o002 != 0 && info.Mode()&os.ModeSticky == 0 {
			r.add(Problem, "chmod o-w "+dir, "everybody may put another socket in place of %s: %s has mode %04o", h.Socket, dir, info.Mode().Perm())
		}
		if owner := ownerOf(info); owner != os.Getuid() && owner != 0 {
			r.add(Problem, "chown root: "+dir, "user %d may put another socket in place of %s: %s is theirs", owner, h.Socket, dir)
		}
	}
	if len(r.findings) == 0 {
		r.ok("%s, for root alone", h.Socket)
	}
}

// ownerOf is whom a file belongs to.
func ownerOf(info os.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return 0
}
