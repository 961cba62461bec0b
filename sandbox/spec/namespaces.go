package spec

import (
	"fmt"
	"math"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// namespaceOrder is in which namespaces are listed; the user namespace comes
// first because the others belong to it.
var namespaceOrder = []specs.LinuxNamespaceType{
	specs.UserNamespace, specs.MountNamespace, specs.NetworkNamespace,
	specs.IPCNamespace, specs.UTSNamespace, specs.PIDNamespace, specs.CgroupNamespace,
}

// namespaces lists those to make and to join.
func (b *builder) namespaces() error {
	for t, p := range b.in.NamespacePaths {
		if !slices.Contains(namespaceOrder, t) {
			return invalid("linux.security_context.namespace_options", "a %s namespace cannot be chosen", t)
		}
		if p != "" && !ValidPath(p) {
			return invalid("linux.security_context.namespace_options", "the path %.300q of the %s namespace is not absolute", p, t)
		}
	}
	if err := b.checkNamespaceOptions(); err != nil {
		return err
	}
	for _, t := range namespaceOrder {
		p, ok := b.in.NamespacePaths[t]
		switch {
		case t == specs.MountNamespace:
			ok, p = true, ""
		case t == specs.CgroupNamespace && !ok:
			// On v1 the hierarchies are bound one by one below
			// the container's cgroup, which hides the rest.
			ok = b.in.Host.Cgroups == CgroupV2 && !b.hostCgroups()
		}
		if ok {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: p})
		}
	}
	return b.mappings()
}

// hostCgroups tells whether the container sees the host's cgroups. A person says so; of CRI's containers it is those that
// are privileged, as kubelet's other runtimes have it.
func (b *builder) hostCgroups() bool {
	if b.in.Extra != nil {
		return b.in.Extra.HostCgroup
	}
	return b.privileged
}

// mappings sets the ID mappings of a new user namespace. One that is joined
// has its own, and naming them again is an error to libcontainer.
func (b *builder) mappings() error {
	p, ok := b.in.NamespacePaths[specs.UserNamespace]
	if !ok {
		if len(b.in.UIDMappings) > 0 || len(b.in.GIDMappings) > 0 {
			return invalid("linux.security_context.namespace_options.userns_options", "mappings without a user namespace")
		}
		return nil
	}
	if p != "" {
		return nil
	}
	if len(b.in.UIDMappings) == 0 || len(b.in.GIDMappings) == 0 {
		return invalid("linux.security_context.namespace_options.userns_options", "a new user namespace needs mappings")
	}
	b.spec.Linux.UIDMappings = slices.Clone(b.in.UIDMappings)
	b.spec.Linux.GIDMappings = slices.Clone(b.in.GIDMappings)
	return nil
}

// checkNamespaceOptions refuses modes that do not exist and a user namespace
// other than the pod's.
func (b *builder) checkNamespaceOptions() error {
	const field = "linux.security_context.namespace_options"
	own := b.sec.GetNamespaceOptions()
	pod := b.in.Pod.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if _, known := runtime.NamespaceMode_name[int32(own.GetPid())]; !known {
		return invalid(field+".pid", "mode %d is unknown", own.GetPid())
	}
	// Network and IPC are the pod's; POD says so, and is what saying nothing
	// looks like.
	for _, shared := range []struct {
		name     string
		own, pod runtime.NamespaceMode
	}{{"network", own.GetNetwork(), pod.GetNetwork()}, {"ipc", own.GetIpc(), pod.GetIpc()}} {
		if shared.own != runtime.NamespaceMode_POD && shared.own != shared.pod {
			return invalid(field+"."+shared.name, "is %s in a pod that has %s", shared.own, shared.pod)
		}
	}
	if own.GetPid() == runtime.NamespaceMode_TARGET && own.GetTargetId() == "" {
		return invalid(field+".target_id", "is empty")
	}
	users := own.GetUsernsOptions()
	uids, gids, on, err := ParseUserNamespace(users)
	if err != nil || users == nil {
		return err
	}
	podUsers := pod.GetUsernsOptions()
	podUIDs, podGIDs, podOn, err := ParseUserNamespace(podUsers)
	if err != nil || podUsers == nil && !on {
		return err
	}
	if on != podOn || !slices.Equal(uids, podUIDs) || !slices.Equal(gids, podGIDs) {
		return invalid(field+".userns_options", "are not the pod's")
	}
	return nil
}

// ParseUserNamespace checks the user namespace options of a pod or container
// and gives its mappings. on is false when no user namespace is asked for,
// which is what nil means too.
func ParseUserNamespace(opts *runtime.UserNamespace) (uids, gids []specs.LinuxIDMapping, on bool, err error) {
	const field = "linux.security_context.namespace_options.userns_options"
	if opts == nil {
		return nil, nil, false, nil
	}
	switch opts.GetMode() {
	case runtime.NamespaceMode_NODE:
		if len(opts.GetUids()) > 0 || len(opts.GetGids()) > 0 {
			return nil, nil, false, invalid(field, "mappings are given with mode NODE")
		}
		return nil, nil, false, nil
	case runtime.NamespaceMode_POD:
	default:
		return nil, nil, false, invalid(field+".mode", "%s is not POD or NODE", opts.GetMode())
	}
	if uids, err = podMapping(field+".uids", opts.GetUids()); err != nil {
		return nil, nil, false, err
	}
	if gids, err = podMapping(field+".gids", opts.GetGids()); err != nil {
		return nil, nil, false, err
	}
	return uids, gids, true, nil
}

// podMapping is a mapping list of a pod: exactly one range, with root in it.
func podMapping(field string, list []*runtime.IDMapping) ([]specs.LinuxIDMapping, error) {
	if len(list) != 1 {
		return nil, invalid(field, "%d ranges, and exactly one is possible", len(list))
	}
	out, err := idMappings(field, list)
	if err != nil {
		return nil, err
	}
	if out[0].ContainerID != 0 {
		return nil, invalid(field, "the container's ID 0 is not mapped")
	}
	return out, nil
}

// idMappings checks and converts ranges.
func idMappings(field string, list []*runtime.IDMapping) ([]specs.LinuxIDMapping, error) {
	var out []specs.LinuxIDMapping
	for i, m := range list {
		// The last ID, 2^32-1, means "no change" to the kernel and is
		// never mapped.
		for _, start := range []uint32{m.GetContainerId(), m.GetHostId()} {
			if m.GetLength() == 0 || uint64(start)+uint64(m.GetLength()) > math.MaxUint32 {
				return nil, invalid(fmt.Sprintf("%s[%d]", field, i), "%d IDs from %d are not a range", m.GetLength(), start)
			}
		}
		out = append(out, specs.LinuxIDMapping{ContainerID: m.GetContainerId(), HostID: m.GetHostId(), Size: m.GetLength()})
	}
	return out, nil
}

// mapped tells whether a container's ID has a host's.
func mapped(list []specs.LinuxIDMapping, id uint32) bool {
	for _, m := range list {
		if id >= m.ContainerID && uint64(id) < uint64(m.ContainerID)+uint64(m.Size) {
			return true
		}
	}
	return false
}
