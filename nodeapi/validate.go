package nodeapi

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// The network modes.
const (
	networkBridge = "bridge"
	networkHost   = "host"
)

// minMemory is the least memory limit, as docker's.
const minMemory = 6 << 20

// validate refuses a specification that cannot be right, before anything is
// made for it.
func validate(spec *nodev1.ContainerSpec) error {
	if spec.GetImage() == "" && spec.GetRootfs() == "" {
		return failf(errdefs.ErrInvalidArgument, "no image specified")
	}
	for _, check := range []func(*nodev1.ContainerSpec) error{
		validateProcess, validateNetwork, validateResources, validateMounts, validateRestart, validateHealth,
		validateExtra, validateLog, validateCgroupParent, validateNames, validateUsers,
	} {
		if err := check(spec); err != nil {
			return err
		}
	}
	return nil
}

func validateProcess(spec *nodev1.ContainerSpec) error {
	for _, env := range spec.GetEnv() {
		if name, _, _ := strings.Cut(env, "="); name == "" {
			return failf(errdefs.ErrInvalidArgument, "invalid environment variable: %s", env)
		}
	}
	if dir := spec.GetWorkingDir(); dir != "" && !path.IsAbs(dir) {
		return failf(errdefs.ErrInvalidArgument,
			"the working directory '%s' is invalid, it needs to be an absolute path", dir)
	}
	if signal := spec.GetStopSignal(); signal != "" {
		if _, err := stopSignal(signal); err != nil {
			return err
		}
	}
	return nil
}

func validateNetwork(spec *nodev1.ContainerSpec) error {
	net := spec.GetNetwork()
	for _, p := range net.GetPorts() {
		if p.GetContainerPort() < 1 || p.GetContainerPort() > 65535 || p.GetHostPort() > 65535 || p.GetHostPortLast() > 65535 {
			return failf(errdefs.ErrInvalidArgument, "invalid port %d:%d", p.GetHostPort(), p.GetContainerPort())
		}
		if _, err := protocol(p.GetProtocol()); err != nil {
			return err
		}
		if p.GetHostIp() == "" {
			continue
		}
		if _, err := netip.ParseAddr(p.GetHostIp()); err != nil {
			return failf(errdefs.ErrInvalidArgument, "invalid IP address: %s", p.GetHostIp())
		}
	}
	for _, server := range net.GetDns() {
		if _, err := netip.ParseAddr(server); err != nil {
			return failf(errdefs.ErrInvalidArgument, "invalid IP address: %s", server)
		}
	}
	for _, host := range net.GetHosts() {
		name, addr, ok := strings.Cut(host, ":")
		if _, err := netip.ParseAddr(addr); !ok || name == "" || strings.ContainsAny(name, " \t\n") ||
			(err != nil && addr != hostGateway) {
			return failf(errdefs.ErrInvalidArgument, "bad format for add-host: %q", host)
		}
	}
	return nil
}

func validateResources(spec *nodev1.ContainerSpec) error {
	res := spec.GetResources()
	if m := res.GetMemoryBytes(); m != 0 && m < minMemory {
		return failf(errdefs.ErrInvalidArgument, "Minimum memory limit allowed is 6MB")
	}
	if adj := res.GetOomScoreAdj(); adj < -1000 || adj > 1000 {
		return failf(errdefs.ErrInvalidArgument, "invalid value %d, range for oom score adj is [-1000, 1000]", adj)
	}
	return nil
}

// validateCgroupParent refuses a parent that is not below the cgroups' root.
func validateCgroupParent(spec *nodev1.ContainerSpec) error {
	parent := spec.GetCgroupParent()
	if slices.Contains(strings.Split(parent, "/"), "..") || strings.ContainsFunc(parent, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return failf(errdefs.ErrInvalidArgument, "invalid cgroup parent: %q", parent)
	}
	return nil
}

func validateMounts(spec *nodev1.ContainerSpec) error {
	targets := map[string]bool{}
	for _, m := range spec.GetMounts() {
		target := path.Clean(m.GetTarget())
		wrong := ""
		switch {
		case m.GetTarget() == "":
			wrong = "field Target must not be empty"
		case target == "/":
			wrong = "invalid specification: destination can't be '/'"
		case !path.IsAbs(m.GetTarget()):
			wrong = fmt.Sprintf("invalid mount path: '%s' mount path must be absolute", m.GetTarget())
		case targets[target]:
			return failf(errdefs.ErrInvalidArgument, "Duplicate mount point: %s", target)
		case m.GetType() == nodev1.Mount_BIND && m.GetSource() == "", m.GetType() == nodev1.Mount_IMAGE && m.GetSource() == "":
			wrong = "field Source must not be empty"
		case m.GetType() == nodev1.Mount_BIND && !path.IsAbs(m.GetSource()):
			wrong = fmt.Sprintf("invalid mount path: '%s' mount path must be absolute", m.GetSource())
		}
		if wrong != "" {
			return failf(errdefs.ErrInvalidArgument, "invalid mount config for type %q: %s", strings.ToLower(m.GetType().String()), wrong)
		}
		if _, err := propagation(m.GetPropagation()); err != nil {
			return err
		}
		targets[target] = true
	}
	return nil
}
