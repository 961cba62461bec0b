package spec

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxSysctlValue is the longest value in bytes; the kernel takes a page.
const maxSysctlValue = 1024

var (
	sysctlName = regexp.MustCompile(`^[a-zA-Z0-9_-]+([./][a-zA-Z0-9_@:-]+)+$`)
	// sysctlValue has no character that separates values from names
	// anywhere, nor a line's end (CVE-2022-0811).
	sysctlValue = regexp.MustCompile(`^[a-zA-Z0-9 \t._:,/-]*$`)

	// ipcSysctls are those of the IPC namespace.
	ipcSysctls = []string{
		"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
		"kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced",
	}
)

// ValidateSysctls checks names and values of a pod's sysctls: each must be
// kept apart by a namespace that the pod has of its own, so that nothing
// written changes the host (CVE-2022-0811, CVE-2022-0532).
func ValidateSysctls(pod *runtime.PodSandboxConfig) error {
	const field = "linux.sysctls"
	namespaces := pod.GetLinux().GetSecurityContext().GetNamespaceOptions()
	sysctls := pod.GetLinux().GetSysctls()
	for _, name := range slices.Sorted(maps.Keys(sysctls)) {
		if len(name) > 256 || !sysctlName.MatchString(name) {
			return invalid(field, "%.300q is not a sysctl's name", name)
		}
		if len(sysctls[name]) > maxSysctlValue || !sysctlValue.MatchString(sysctls[name]) {
			return invalid(fmt.Sprintf("%s[%s]", field, name), "the value %.300q contains what no value can", sysctls[name])
		}
		var mode runtime.NamespaceMode
		switch p := SysctlPath(name); {
		case strings.HasPrefix(p, "net/"):
			mode = namespaces.GetNetwork()
		case strings.HasPrefix(p, "fs/mqueue/"), slices.Contains(ipcSysctls, p):
			mode = namespaces.GetIpc()
		default:
			return invalid(fmt.Sprintf("%s[%s]", field, name), "is not kept apart by a namespace")
		}
		if mode == runtime.NamespaceMode_NODE {
			return invalid(fmt.Sprintf("%s[%s]", field, name), "would change the host, whose namespace the pod shares")
		}
	}
	return nil
}

// SysctlPath gives the path of a sysctl below /proc/sys. As in sysctl(8) the
// first separator decides: after a dot, dots separate and slashes stand for
// dots in a name ("net.ipv4.conf.eth0/1.forwarding"); after a slash, slashes
// separate and dots are dots.
func SysctlPath(name string) string {
	first := strings.IndexAny(name, "./")
	if first < 0 || name[first] == '/' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}
