package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ttyGID is the group of terminals in nearly every image.
const ttyGID = 5

// mounts lists the usual kernel file systems, the pod's generated files and
// the configuration's mounts; the latter take the place of the former.
func (b *builder) mounts() error {
	var own []specs.Mount
	taken := make(map[string]bool)
	for i, m := range b.in.Mounts {
		mount, err := b.mount(fmt.Sprintf("mounts[%d]", i), m)
		if err != nil {
			return err
		}
		own = append(own, mount)
		taken[mount.Destination] = true
	}
	files, err := b.fileMounts()
	if err != nil {
		return err
	}
	for _, m := range slices.Concat(b.kernelMounts(), files) {
		if !taken[m.Destination] {
			b.spec.Mounts = append(b.spec.Mounts, m)
		}
	}
	b.spec.Mounts = append(b.spec.Mounts, own...)
	return nil
}

// kernelMounts are the file systems every container gets.
func (b *builder) kernelMounts() []specs.Mount {
	mode, cgroups := "ro", "ro"
	if b.privileged || b.in.Extra != nil && b.in.Extra.WritableCgroups {
		cgroups = "rw"
	}
	if b.privileged {
		mode = "rw"
	}
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if !b.userns || len(b.in.GIDMappings) == 0 || mapped(b.in.GIDMappings, ttyGID) {
		pts = append(pts, fmt.Sprintf("gid=%d", ttyGID))
	}
	mounts := []specs.Mount{
		b.proc(),
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
		b.sys(mode),
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", cgroups}},
	}
	if !b.in.NoMqueue || !b.hostsUnderUserNamespace(specs.IPCNamespace) {
		mounts = append(mounts, b.mqueue())
	}
	if b.in.Extra != nil && b.in.Extra.NoShm {
		return mounts
	}
	if b.in.ShmPath != "" {
		return append(mounts, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: b.in.ShmPath, Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"}})
	}
	return append(mounts, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}})
}

// The kernel lets a user namespace mount proc, mqueue and sysfs only when the
// PID, IPC or network namespace is owned by it too. With the host's, the
// host's mount is bound in its place.

func (b *builder) proc() specs.Mount {
	if b.hostsUnderUserNamespace(specs.PIDNamespace) {
		return bound("/proc", "nosuid", "noexec", "nodev", "rw")
	}
	return specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}}
}

func (b *builder) mqueue() specs.Mount {
	if b.hostsUnderUserNamespace(specs.IPCNamespace) {
		return bound("/dev/mqueue", "nosuid", "noexec", "nodev", "rw")
	}
	return specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}}
}

func (b *builder) sys(mode string) specs.Mount {
	if b.hostsUnderUserNamespace(specs.NetworkNamespace) {
		if mode == "ro" && b.in.Host.RecursiveReadOnly {
			// Plain ro leaves what is mounted below /sys writable.
			mode = "rro"
		}
		return bound("/sys", "nosuid", "noexec", "nodev", mode)
	}
	return specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", mode}}
}

// hostsUnderUserNamespace tells of a container in a user namespace that has
// the host's namespace of type t.
func (b *builder) hostsUnderUserNamespace(t specs.LinuxNamespaceType) bool {
	_, private := b.in.NamespacePaths[t]
	return b.userns && !private
}

func bound(where string, options ...string) specs.Mount {
	return specs.Mount{Destination: where, Type: "bind", Source: where, Options: append([]string{"rbind", "rprivate"}, options...)}
}

// fileMounts bind the pod's generated files.
func (b *builder) fileMounts() ([]specs.Mount, error) {
	mode := "rw"
	if b.spec.Root.Readonly {
		mode = "ro"
	}
	var out []specs.Mount
	for _, f := range []struct{ where, source string }{
		{"/etc/hosts", b.in.Files.Hosts},
		{"/etc/hostname", b.in.Files.Hostname},
		{"/etc/resolv.conf", b.in.Files.ResolvConf},
	} {
		if f.source == "" {
			continue
		}
		if !ValidPath(f.source) {
			return nil, invalid("files", "the source %.300q of %s is not an absolute path", f.source, f.where)
		}
		out = append(out, specs.Mount{Destination: f.where, Type: "bind", Source: f.source, Options: []string{"rbind", "rprivate", mode}})
	}
	return out, nil
}

// mount converts one of the configuration's.
func (b *builder) mount(field string, m *runtime.Mount) (specs.Mount, error) {
	none := specs.Mount{}
	where := m.GetContainerPath()
	if !ValidPath(where) {
		return none, invalid(field+".container_path", "%.300q is not an absolute path", where)
	}
	if where = path.Clean(where); where == "/" {
		return none, invalid(field+".container_path", "the root of the container cannot be mounted over")
	}
	if !ValidPath(m.GetHostPath()) {
		return none, invalid(field+".host_path", "%.300q is not an absolute path", m.GetHostPath())
	}
	propagation, err := b.propagation(field, m)
	if err != nil {
		return none, err
	}
	mode, err := b.accessMode(field, m)
	if err != nil {
		return none, err
	}
	options, err := mountOptions(field, m.GetMountOptions())
	if err != nil {
		return none, err
	}
	out := specs.Mount{
		Destination: where, Type: "bind", Source: m.GetHostPath(),
		Options: append([]string{"rbind", propagation, mode}, options...),
	}
	return out, b.idmap(field, m, &out)
}

// propagation gives the option for how mounts below travel, and sets the
// root's accordingly, because a mount is a peer of the host's only if the
// tree it is bound from has not been cut off.
func (b *builder) propagation(field string, m *runtime.Mount) (string, error) {
	linux := b.spec.Linux
	switch m.GetPropagation() {
	case runtime.MountPropagation_PROPAGATION_PRIVATE:
		return "rprivate", nil
	case runtime.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		if linux.RootfsPropagation == "" {
			linux.RootfsPropagation = "rslave"
		}
		return "rslave", nil
	case runtime.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		linux.RootfsPropagation = "rshared"
		return "rshared", nil
	}
	return "", invalid(field+".propagation", "%d is unknown", m.GetPropagation())
}

// accessMode gives "rw", "ro" or "rro".
func (b *builder) accessMode(field string, m *runtime.Mount) (string, error) {
	private := m.GetPropagation() == runtime.MountPropagation_PROPAGATION_PRIVATE
	if m.GetImage().GetImage() != "" && !private {
		return "", invalid(field+".propagation", "an image is mounted with PROPAGATION_PRIVATE only")
	}
	switch {
	case !m.GetRecursiveReadOnly():
		if m.GetReadonly() || m.GetImage().GetImage() != "" {
			return "ro", nil
		}
		return "rw", nil
	case !m.GetReadonly():
		return "", invalid(field+".recursive_read_only", "is set without readonly")
	case !private:
		return "", invalid(field+".recursive_read_only", "is set without PROPAGATION_PRIVATE")
	case !b.in.Host.RecursiveReadOnly:
		return "", unsupported(field+".recursive_read_only", "this kernel has no recursive read-only mounts")
	}
	return "rro", nil
}

// mountOptionNames are what mount_options may hold: options that take
// something away and mean the same for every file system.
var mountOptionNames = []string{"noexec", "nodev", "nosuid", "nosymfollow", "noatime", "nodiratime", "relatime"}

func mountOptions(field string, list []string) ([]string, error) {
	var out []string
	for i, o := range list {
		if !slices.Contains(mountOptionNames, o) {
			return nil, invalid(fmt.Sprintf("%s.mount_options[%d]", field, i), "%.300q is not one of %s", o, strings.Join(mountOptionNames, ", "))
		}
		if !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out, nil
}

// idmap sets the mappings of a mount whose owners are shown otherwise.
func (b *builder) idmap(field string, m *runtime.Mount, out *specs.Mount) error {
	if len(m.GetUidMappings()) == 0 && len(m.GetGidMappings()) == 0 {
		return nil
	}
	var err error
	if out.UIDMappings, err = idMappings(field+".uidMappings", m.GetUidMappings()); err != nil {
		return err
	}
	if out.GIDMappings, err = idMappings(field+".gidMappings", m.GetGidMappings()); err != nil {
		return err
	}
	switch {
	case len(out.UIDMappings) == 0:
		return invalid(field+".uidMappings", "are missing, with gidMappings given")
	case len(out.GIDMappings) == 0:
		return invalid(field+".gidMappings", "are missing, with uidMappings given")
	case !b.userns:
		return invalid(field+".uidMappings", "are given in a pod without a user namespace")
	case !b.in.Host.IDMap:
		return unsupported(field+".uidMappings", "this kernel has no idmapped mounts")
	}
	return nil
}

// order sorts mounts so that none hides one made before it; those of one
// depth stay as they are. It comes last, for an edit may have added some.
func (b *builder) order() error {
	slices.SortStableFunc(b.spec.Mounts, func(a, c specs.Mount) int {
		return depth(a.Destination) - depth(c.Destination)
	})
	return nil
}

func depth(p string) int {
	return strings.Count(path.Clean("/"+p), "/")
}

// The parts of /proc and /sys that tell of the host or change it.
var (
	defaultMasked = []string{
		"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/proc/interrupts", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	defaultReadonly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// paths masks and write-protects paths exactly as the configuration says;
// nothing of it holds for a privileged container.
func (b *builder) paths() error {
	if b.privileged {
		return nil
	}
	masked, readonly := b.sec.GetMaskedPaths(), b.sec.GetReadonlyPaths()
	if b.in.DefaultMasks && masked == nil {
		masked = defaultMasked
	}
	if b.in.DefaultMasks && readonly == nil {
		readonly = defaultReadonly
	}
	for _, l := range []struct {
		field string
		paths []string
	}{{"masked_paths", masked}, {"readonly_paths", readonly}} {
		for i, p := range l.paths {
			if !ValidPath(p) {
				return invalid(fmt.Sprintf("linux.security_context.%s[%d]", l.field, i), "%.300q is not an absolute path", p)
			}
		}
	}
	b.spec.Linux.MaskedPaths = slices.Clone(masked)
	b.spec.Linux.ReadonlyPaths = slices.Clone(readonly)
	return nil
}

// Bounds of the kernel (PATH_MAX, NAME_MAX), in bytes.
const (
	maxPath = 4096 - 1
	maxName = 255
)

// ValidPath tells an absolute path that a system call takes whole.
func ValidPath(p string) bool {
	if !path.IsAbs(p) || strings.ContainsRune(p, 0) || len(p) > maxPath {
		return false
	}
	for part := range strings.SplitSeq(p, "/") {
		if len(part) > maxName {
			return false
		}
	}
	return true
}
