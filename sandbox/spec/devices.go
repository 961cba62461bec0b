package spec

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// devices lists device nodes and the device cgroup's rules. libcontainer adds
// the harmless ones every container has (null, zero, full, random, urandom,
// tty, ptmx and terminals) to both.
func (b *builder) devices() error {
	if err := ValidateDevices(b.cfg.GetDevices()); err != nil {
		return err
	}
	all := b.in.Devices
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	everything := b.privileged && !b.in.NoHostDevices
	if everything {
		// The configuration's own come last and win.
		all = slices.Concat(b.in.HostDevices, b.in.Devices)
		rules[0].Allow = true
	}
	at := make(map[string]int, len(all))
	for _, d := range all {
		node, rule, err := convertDevice(d)
		if err != nil {
			return err
		}
		if b.userns && d.HostPath != d.ContainerPath && d.HostPath != "" {
			// No node can be made there: libcontainer binds the host's, and
			// looks for it under the name it has in the container.
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{
				Destination: d.ContainerPath, Source: d.HostPath, Type: "bind", Options: []string{"bind", "rprivate", "rw", "nosuid", "noexec"},
			})
		} else if i, again := at[node.Path]; again {
			b.spec.Linux.Devices[i] = node
		} else {
			at[node.Path] = len(b.spec.Linux.Devices)
			b.spec.Linux.Devices = append(b.spec.Linux.Devices, node)
		}
		// A named pipe is no device to the cgroup.
		if !everything && d.Type != "p" {
			rules = append(rules, rule)
		}
	}
	b.spec.Linux.Resources = &specs.LinuxResources{Devices: rules}
	return nil
}

// ValidateDevices checks the devices of a configuration, before they are
// looked for on the host.
func ValidateDevices(list []*runtime.Device) error {
	for i, d := range list {
		field := fmt.Sprintf("devices[%d]", i)
		switch {
		case !ValidPath(d.GetHostPath()):
			return invalid(field+".host_path", "%.300q is not an absolute path", d.GetHostPath())
		case d.GetContainerPath() != "" && !ValidPath(d.GetContainerPath()):
			return invalid(field+".container_path", "%.300q is not an absolute path", d.GetContainerPath())
		case !permissions(d.GetPermissions()):
			return invalid(field+".permissions", "%.300q is not made of r, w and m", d.GetPermissions())
		}
	}
	return nil
}

// permissions tells a list of r, w and m, each at most once; empty is one too.
func permissions(p string) bool {
	return len(p) <= 3 && strings.Trim(p, "rwm") == "" &&
		strings.Count(p, "r") <= 1 && strings.Count(p, "w") <= 1 && strings.Count(p, "m") <= 1
}

func convertDevice(d Device) (specs.LinuxDevice, specs.LinuxDeviceCgroup, error) {
	var none specs.LinuxDevice
	var no specs.LinuxDeviceCgroup
	switch {
	case !ValidPath(d.ContainerPath):
		return none, no, invalid("devices", "%.300q is not an absolute path", d.ContainerPath)
	case d.Type != "c" && d.Type != "b" && d.Type != "p":
		return none, no, invalid("devices", "%s is of type %.300q", d.HostPath, d.Type)
	case d.Permissions == "" || !permissions(d.Permissions):
		return none, no, invalid("devices", "the permissions %.300q of %s are not made of r, w and m", d.Permissions, d.HostPath)
	}
	node := specs.LinuxDevice{
		Path: d.ContainerPath, Type: d.Type, Major: d.Major, Minor: d.Minor,
		FileMode: pointer(d.Mode.Perm()), UID: pointer(d.UID), GID: pointer(d.GID),
	}
	rule := specs.LinuxDeviceCgroup{
		Allow: true, Type: d.Type, Major: pointer(d.Major), Minor: pointer(d.Minor), Access: d.Permissions,
	}
	return node, rule, nil
}
