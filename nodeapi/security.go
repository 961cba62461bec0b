package nodeapi

import (
	"cmp"
	"encoding/json"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	unconfined  = "unconfined"
	seccompName = "seccomp.json"
)

// The parts of /proc and /sys that docker hides or makes read-only.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// namespaceOptions says which namespaces of the host are shared.
func namespaceOptions(spec *nodev1.ContainerSpec) *runtime.NamespaceOption {
	o := &runtime.NamespaceOption{
		Network: runtime.NamespaceMode_POD,
		Pid:     runtime.NamespaceMode_CONTAINER,
		Ipc:     runtime.NamespaceMode_POD,
	}
	if spec.GetNetwork().GetMode() == networkHost {
		o.Network = runtime.NamespaceMode_NODE
	}
	switch {
	case spec.GetSecurity().GetHostPid():
		o.Pid = runtime.NamespaceMode_NODE
	case spec.GetInit() && spec.GetSecurity().GetPidContainer() == "":
		// The pod's own first process reaps orphans. Signals go to the
		// container's process, which is not the first.
		o.Pid = runtime.NamespaceMode_POD
	}
	if spec.GetSecurity().GetHostIpc() {
		o.Ipc = runtime.NamespaceMode_NODE
	}
	return o
}

// securityContext makes the container's security context.
func securityContext(m *making) *runtime.LinuxContainerSecurityContext {
	sec := m.spec.GetSecurity()
	c := &runtime.LinuxContainerSecurityContext{
		Privileged:         sec.GetPrivileged(),
		NamespaceOptions:   withUsers(namespaceOptions(m.spec), m.users),
		ReadonlyRootfs:     sec.GetReadOnly(),
		NoNewPrivs:         sec.GetNoNewPrivileges(),
		SupplementalGroups: m.spec.GetGroups(),
		Capabilities: &runtime.Capability{
			AddCapabilities:  capabilityNames(sec.GetCapAdd()),
			DropCapabilities: capabilityNames(sec.GetCapDrop()),
		},
		Seccomp:  &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_RuntimeDefault},
		Apparmor: apparmor(sec),
	}
	switch {
	case sec.GetPrivileged() && sec.GetSeccomp() == "", sec.GetSeccomp() == unconfined:
		c.Seccomp.ProfileType = runtime.SecurityProfile_Unconfined
	case sec.GetSeccomp() != "":
		c.Seccomp.ProfileType = runtime.SecurityProfile_Localhost
		c.Seccomp.LocalhostRef = m.server.files.path(m.key, seccompName)
	}
	if !sec.GetPrivileged() && !sec.GetUnmasked() {
		c.MaskedPaths, c.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	if options := selinuxOptions(sec.GetSelinux()); options != nil {
		c.SelinuxOptions = options
	}
	setUser(c, m.spec.GetUser())
	return c
}

// selinuxOptions reads label options such as "type:svirt_t"; nil is none.
func selinuxOptions(labels []string) *runtime.SELinuxOption {
	var out *runtime.SELinuxOption
	for _, label := range labels {
		name, value, _ := strings.Cut(label, ":")
		if out == nil {
			out = &runtime.SELinuxOption{}
		}
		switch name {
		case "user":
			out.User = value
		case "role":
			out.Role = value
		case "type":
			out.Type = value
		case "level":
			out.Level = value
		case "disable":
			return nil
		}
	}
	return out
}

// apparmor makes the AppArmor profile; nil leaves it to the runtime.
func apparmor(sec *nodev1.Security) *runtime.SecurityProfile {
	switch sec.GetApparmor() {
	case "":
		return nil
	case unconfined:
		return &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined}
	default:
		return &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: sec.GetApparmor()}
	}
}

// capabilityNames writes names as CRI has them: without CAP_, in capitals.
func capabilityNames(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	}
	return out
}

// setUser writes user[:group] into the context. CRI has no group by name: it
// is left with the user's name, which the image's files resolve.
func setUser(c *runtime.LinuxContainerSecurityContext, user string) {
	if user = wholeUser(user); user == "" {
		return
	}
	name, group, hasGroup := strings.Cut(user, ":")
	uid, uidErr := strconv.ParseUint(name, 10, 31)
	gid, gidErr := strconv.ParseUint(group, 10, 31)
	switch {
	case hasGroup && gidErr != nil:
		c.RunAsUsername = user
		return
	case uidErr == nil:
		c.RunAsUser = &runtime.Int64Value{Value: int64(uid)}
	default:
		c.RunAsUsername = name
	}
	if hasGroup {
		c.RunAsGroup = &runtime.Int64Value{Value: int64(gid)}
	}
}

// wholeUser is user[:group] as docker reads it: no user is root, and no group
// the user's own. Nothing at all is left to the image.
func wholeUser(user string) string {
	name, group, ok := strings.Cut(user, ":")
	if ok {
		name = cmp.Or(name, "0")
	}
	if group != "" {
		name += ":" + group
	}
	return name
}

// writeSeccomp keeps a seccomp profile where the container's configuration
// names it.
func (f files) writeSeccomp(key, profile string) error {
	if profile == "" || profile == unconfined {
		return nil
	}
	if !json.Valid([]byte(profile)) {
		return failf(errdefs.ErrInvalidArgument, "Decoding seccomp profile failed: it is not JSON")
	}
	return os.WriteFile(f.path(key, seccompName), []byte(profile), 0o600)
}
