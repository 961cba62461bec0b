package sandbox

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
	"github.com/nodeagent/nodeagent/sandbox/spec"
)

// namespaceOptions never gives nil.
func namespaceOptions(config *runtime.PodSandboxConfig) *runtime.NamespaceOption {
	if o := config.GetLinux().GetSecurityContext().GetNamespaceOptions(); o != nil {
		return o
	}
	return &runtime.NamespaceOption{}
}

// hostNetwork says whether the pod uses the host's network; it then uses the
// host's UTS namespace too, for a name goes with an address.
func hostNetwork(config *runtime.PodSandboxConfig) bool {
	return namespaceOptions(config).GetNetwork() == runtime.NamespaceMode_NODE
}

// networkTarget is the pod whose network namespace a person's pod shares; empty
// for all others.
func networkTarget(config *runtime.PodSandboxConfig) string {
	if o := namespaceOptions(config); o.GetNetwork() == runtime.NamespaceMode_TARGET {
		return o.GetTargetId()
	}
	return ""
}

// ownNamespaces are those to be pinned for the pod. A person's has a name of
// its own on the host's network too.
func ownNamespaces(config *runtime.PodSandboxConfig, owner Owner) []namespace.Kind {
	var kinds []namespace.Kind
	switch {
	case hostNetwork(config) && owner == OwnerNodectl:
		kinds = append(kinds, namespace.UTS)
	case hostNetwork(config):
	case networkTarget(config) != "":
		kinds = append(kinds, namespace.UTS)
	default:
		kinds = append(kinds, namespace.Net, namespace.UTS)
	}
	if namespaceOptions(config).GetIpc() != runtime.NamespaceMode_NODE {
		kinds = append(kinds, namespace.IPC)
	}
	return kinds
}

// planPod checks a request and gives the state its pod begins with.
func (m *Manager) planPod(req RunPodRequest) (*podState, error) {
	config := req.Config
	if err := checkPodNames(config, req.Owner); err != nil {
		return nil, err
	}
	if _, known := m.cfg.Handlers[req.Handler]; !known && req.Handler != "" {
		return nil, invalid("runtime_handler", "there is no %q", req.Handler)
	}
	if err := spec.ValidateSandboxSecurity(config.GetLinux().GetSecurityContext()); err != nil {
		return nil, err
	}
	if err := checkPodModes(config, req.Owner); err != nil {
		return nil, err
	}
	uids, gids, err := userMappings(config)
	if err != nil {
		return nil, err
	}
	if err := checkDNS(config.GetDnsConfig()); err != nil {
		return nil, err
	}
	if _, err := portMappings(config); err != nil {
		return nil, err
	}
	own := ownNamespaces(config, req.Owner)
	if err := spec.ValidateSysctls(config); err != nil {
		return nil, err
	}
	s := &podState{
		Pod: Pod{
			ID: newID(), Owner: req.Owner, State: podMaking, Config: config,
			Handler: req.Handler, CreatedAt: now(),
		},
		BootID: m.bootID, Own: own, UIDs: uids, GIDs: gids, Hostname: config.GetHostname(), Networks: req.Networks, MAC: req.MAC,
		ShmSize: req.ShmSize, Domainname: req.Domainname,
	}
	if slices.Contains(own, namespace.Net) {
		s.NetNS = filepath.Join(m.nsDir(s.ID), string(namespace.Net))
	}
	if err := m.placePod(s); err != nil {
		return nil, err
	}
	return s, m.checkPodResources(s)
}

// placePod decides the pod's cgroup. One that was asked for by name belongs
// to who asked, and is only made when it is missing.
func (m *Manager) placePod(s *podState) error {
	parent := s.Config.GetLinux().GetCgroupParent()
	if parent == "" {
		s.OwnsCgroup, s.CgroupPath = true, m.ownCgroup(m.podsCgroup(), s.ID)
		return nil
	}
	parent, err := m.checkCgroupParent(parent)
	if err != nil {
		return err
	}
	s.CgroupPath = parent
	if s.Owner == OwnerNodectl {
		// A person names what the pod's own is to lie in.
		s.OwnsCgroup, s.CgroupPath = true, m.ownCgroup(parent, s.ID)
	}
	return nil
}

// ownCgroup is that of a pod in another.
func (m *Manager) ownCgroup(parent, id string) string {
	if m.cfg.SystemdCgroup {
		return cgroups.SliceBelow(parent, id)
	}
	return path.Join(parent, id)
}

// userMappings gives the pod's user namespace; empty without one.
func userMappings(config *runtime.PodSandboxConfig) (uids, gids []namespace.Mapping, err error) {
	u, g, _, err := spec.ParseUserNamespace(namespaceOptions(config).GetUsernsOptions())
	return mappings(u), mappings(g), err
}

func mappings(list []specs.LinuxIDMapping) []namespace.Mapping {
	var out []namespace.Mapping
	for _, m := range list {
		out = append(out, namespace.Mapping{ContainerID: m.ContainerID, HostID: m.HostID, Length: m.Size})
	}
	return out
}

// attachment is the pod as the network sees it.
func (s *podState) attachment() network.Attachment {
	// The ports were checked when the pod was planned.
	ports, _ := portMappings(s.Config)
	meta, dns := s.Config.GetMetadata(), s.Config.GetDnsConfig()
	return network.Attachment{
		PodID: s.ID, NetNS: s.NetNS, Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid(),
		Handler: s.Handler, Ports: ports, Annotations: s.Config.GetAnnotations(),
		DNSServers: dns.GetServers(), DNSSearches: dns.GetSearches(), DNSOptions: dns.GetOptions(),
		CgroupParent: s.CgroupPath, Membership: s.Networks, MAC: s.MAC,
	}
}

// podKey is what a pod is known by before it has an ID.
func podKey(owner Owner, meta *runtime.PodSandboxMetadata) string {
	return fmt.Sprintf("pod %s %q %q %q %d", owner, meta.GetNamespace(), meta.GetName(), meta.GetUid(), meta.GetAttempt())
}

// podTitle is a pod's name for people.
func podTitle(meta *runtime.PodSandboxMetadata) string {
	if meta.GetNamespace() == "" {
		return meta.GetName()
	}
	return meta.GetNamespace() + "/" + meta.GetName()
}
