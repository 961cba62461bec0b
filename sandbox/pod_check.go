package sandbox

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox/spec"
)

// Bounds of the kernel, in bytes: a host's name (__NEW_UTS_LEN) and a file's.
const (
	maxHostname = 64
	maxFileName = 255
)

// invalid is an ErrInvalidArgument of a field, named as CRI does.
func invalid(field, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", field, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

func notPrintable(r rune) bool { return r < ' ' || r == 0x7f }

func checkPodNames(config *runtime.PodSandboxConfig, owner Owner) error {
	meta, host, logs := config.GetMetadata(), config.GetHostname(), config.GetLogDirectory()
	switch {
	case config == nil:
		return invalid("config", "is missing")
	case meta.GetName() == "":
		return invalid("metadata.name", "is missing")
	case owner != OwnerCRI && owner != OwnerNodectl:
		return invalid("owner", "%q is unknown", owner)
	case len(host) > maxHostname:
		return invalid("hostname", "%.100q is longer than %d bytes", host, maxHostname)
	case strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' }):
		return invalid("hostname", "%q is no host's name", host)
	case logs != "" && !spec.ValidPath(logs):
		return invalid("log_directory", "%.300q is not an absolute path", logs)
	}
	for _, f := range []struct{ field, value string }{
		{"name", meta.GetName()}, {"namespace", meta.GetNamespace()}, {"uid", meta.GetUid()},
	} {
		if err := checkName("metadata."+f.field, f.value); err != nil {
			return err
		}
	}
	return nil
}

// checkName refuses a name that would break the lines it is written to: a log's,
// a plugin's arguments.
func checkName(field, name string) error {
	if strings.ContainsFunc(name, notPrintable) {
		return invalid(field, "%.300q contains a control character", name)
	}
	return nil
}

// checkPodModes refuses namespace modes that a pod cannot have. A person's may
// share the network of another.
func checkPodModes(config *runtime.PodSandboxConfig, owner Owner) error {
	o := namespaceOptions(config)
	networks := []runtime.NamespaceMode{runtime.NamespaceMode_POD, runtime.NamespaceMode_NODE}
	if owner == OwnerNodectl && networkTarget(config) != "" {
		networks = append(networks, runtime.NamespaceMode_TARGET)
	}
	for _, c := range []struct {
		name    string
		mode    runtime.NamespaceMode
		allowed []runtime.NamespaceMode
	}{
		{"network", o.GetNetwork(), networks},
		{"ipc", o.GetIpc(), []runtime.NamespaceMode{runtime.NamespaceMode_POD, runtime.NamespaceMode_NODE}},
		{"pid", o.GetPid(), []runtime.NamespaceMode{
			runtime.NamespaceMode_POD, runtime.NamespaceMode_CONTAINER, runtime.NamespaceMode_NODE,
		}},
	} {
		if !slices.Contains(c.allowed, c.mode) {
			return invalid("linux.security_context.namespace_options."+c.name, "a pod cannot have the mode %s", c.mode)
		}
	}
	return nil
}

// checkDNS refuses values that would be more than one word of resolv.conf.
func checkDNS(dns *runtime.DNSConfig) error {
	for _, l := range []struct {
		field string
		words []string
	}{{"servers", dns.GetServers()}, {"searches", dns.GetSearches()}, {"options", dns.GetOptions()}} {
		for i, word := range l.words {
			if word == "" || strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				return invalid(fmt.Sprintf("dns_config.%s[%d]", l.field, i), "%.300q is not one word", word)
			}
		}
	}
	return nil
}

// checkCgroupParent gives the cgroup that is asked for as a path, and refuses
// what is none, or no slice where systemd has the cgroups.
func (m *Manager) checkCgroupParent(parent string) (string, error) {
	const field = "linux.cgroup_parent"
	if m.cfg.SystemdCgroup != strings.HasSuffix(parent, ".slice") {
		return "", invalid(field, "%.300q does not fit the cgroup driver", parent)
	}
	if strings.ContainsFunc(parent, notPrintable) || !spec.ValidPath("/"+parent) {
		return "", invalid(field, "%.300q is not a path", parent)
	}
	for part := range strings.SplitSeq(parent, "/") {
		if part == ".." || len(part) > maxFileName {
			return "", invalid(field, "%.300q is not a path", parent)
		}
	}
	if !m.cfg.SystemdCgroup {
		return path.Join("/", parent), nil
	}
	dir, err := cgroups.SlicePath(parent)
	if err != nil {
		return "", invalid(field, "%.300q is not a slice such as a-b.slice, or its path", parent)
	}
	return dir, nil
}

// checkPodResources refuses limits that cannot be right. What this host cannot
// do is nothing to who limits the cgroup itself.
func (m *Manager) checkPodResources(s *podState) error {
	linux := s.Config.GetLinux()
	if _, err := spec.Resources(linux.GetResources(), m.cfg.Features); err != nil && (s.OwnsCgroup || errdefs.IsInvalidArgument(err)) {
		return err
	}
	if _, err := spec.ResourcesOf("linux.overhead", linux.GetOverhead(), m.cfg.Features); errdefs.IsInvalidArgument(err) {
		return err
	}
	return nil
}

var protocols = map[runtime.Protocol]network.Protocol{
	runtime.Protocol_TCP: network.TCP, runtime.Protocol_UDP: network.UDP, runtime.Protocol_SCTP: network.SCTP,
}

// portMappings gives what is published on the host.
func portMappings(config *runtime.PodSandboxConfig) ([]network.PortMapping, error) {
	var ports []network.PortMapping
	for i, p := range config.GetPortMappings() {
		field := fmt.Sprintf("port_mappings[%d].", i)
		protocol, ok := protocols[p.GetProtocol()]
		if !ok {
			return nil, invalid(field+"protocol", "%s is unknown", p.GetProtocol())
		}
		out := network.PortMapping{Protocol: protocol}
		if p.GetHostIp() != "" {
			ip, err := netip.ParseAddr(p.GetHostIp())
			if err != nil {
				return nil, invalid(field+"host_ip", "%.100q is no address", p.GetHostIp())
			}
			out.HostIP = ip
		}
		if p.GetHostPort() == 0 {
			continue
		}
		for _, n := range []struct {
			field string
			port  int32
			to    *uint16
		}{{"host_port", p.GetHostPort(), &out.HostPort}, {"container_port", p.GetContainerPort(), &out.ContainerPort}} {
			if n.port < 1 || n.port > 65535 {
				return nil, invalid(field+n.field, "%d is no port", n.port)
			}
			*n.to = uint16(n.port)
		}
		ports = append(ports, out)
	}
	return ports, nil
}
