package container

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

func (f *createFlags) fillSecurity(spec *nodev1.ContainerSpec) error {
	sec := &nodev1.Security{
		Privileged: f.privileged, ReadOnly: f.readOnly, CapAdd: f.capAdd, CapDrop: f.capDrop,
		HostPid: f.pid == "host", HostIpc: f.ipc == "host", HostUts: f.uts == "host", HostCgroup: f.cgroupns == "host",
		Userns: f.userns, NoShm: f.ipc == "none", ShareableIpc: f.ipc == "shareable",
	}
	if name, ok := strings.CutPrefix(f.pid, "container:"); ok && name != "" {
		sec.PidContainer = name
	} else if f.pid != "" && f.pid != "host" && f.pid != "private" {
		return fmt.Errorf("--pid: invalid PID mode")
	}
	if name, ok := strings.CutPrefix(f.ipc, "container:"); ok && name != "" {
		sec.IpcContainer = name
	} else if f.ipc != "" && !slices.Contains([]string{"host", "none", "private", "shareable"}, f.ipc) {
		return fmt.Errorf("--ipc: invalid IPC mode: %s", f.ipc)
	}
	switch {
	case f.uts != "" && f.uts != "host":
		return fmt.Errorf("--uts: invalid UTS mode")
	case f.cgroupns != "" && f.cgroupns != "host" && f.cgroupns != "private":
		return fmt.Errorf("--cgroupns: invalid CGROUP mode")
	}
	spec.Security = sec
	for _, option := range f.securityOpt {
		if err := securityOption(sec, option); err != nil {
			return err
		}
	}
	return nil
}

// securityOption reads one --security-opt.
func securityOption(sec *nodev1.Security, option string) error {
	name, value, ok := strings.Cut(option, "=")
	if !ok {
		name, value, ok = strings.Cut(option, ":")
	}
	switch {
	case name == "no-new-privileges":
		on := true
		if ok {
			var err error
			if on, err = strconv.ParseBool(value); err != nil {
				return fmt.Errorf("invalid --security-opt: %q", option)
			}
		}
		sec.NoNewPrivileges = on
	case name == "writable-cgroups":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid --security-opt: %q", option)
		}
		sec.WritableCgroups = on
	case !ok || value == "":
		return fmt.Errorf("invalid --security-opt: %q", option)
	case name == "apparmor":
		sec.Apparmor = value
	case name == "label":
		sec.Selinux = append(sec.Selinux, value)
	case name == "systempaths" && value == "unconfined":
		sec.Unmasked = true
	case name == "seccomp" && (value == "unconfined" || value == "builtin"):
		sec.Seccomp = strings.TrimPrefix(value, "builtin")
	case name == "seccomp":
		profile, err := os.ReadFile(value)
		if err != nil {
			return fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
		}
		sec.Seccomp = string(profile)
	default:
		return fmt.Errorf("invalid --security-opt: %q", option)
	}
	return nil
}
