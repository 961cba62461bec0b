package spec

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// refused checks for an error of a configuration that names the field.
func refused(t *testing.T, name string, err error, field string) {
	t.Helper()
	if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), field+":") {
		t.Errorf("%s: %v; want InvalidArgument of %s", name, err, field)
	}
}

const sc = "linux.security_context."

// invalidInputs maps what is wrong to the field that must be named.
var invalidInputs = []struct {
	name, field string
	change      func(*Input)
}{
	{"no ID", "id", func(in *Input) { in.ID = "" }},
	{"no configuration", "config", func(in *Input) { in.Container = nil }},
	{"no pod", "sandbox_config", func(in *Input) { in.Pod = nil }},
	{"rootfs", "rootfs", func(in *Input) { in.Rootfs = "relative" }},
	{"cgroup", "linux.cgroup_parent", func(in *Input) { in.CgroupsPath = "/a/../b" }},
	{"hostname", "hostname", func(in *Input) { in.Hostname = "a\x00" }},
	{"variable's name", "envs[0].key", func(in *Input) { in.Container.Envs[0].Key = "A=B" }},
	{"no name", "envs[1].key", func(in *Input) { in.Container.Envs[1].Key = "" }},
	{"variable's value", "envs[1].value", func(in *Input) { in.Container.Envs[1].Value = []byte{0} }},
	{"image's variable", "image.config.Env[1]", func(in *Input) { in.Image.Config.Env[1] = "NOTHING" }},
	{"image's variable with NUL", "image.config.Env[1]", func(in *Input) { in.Image.Config.Env[1] = "A=\x00" }},
	{"folder", "working_dir", func(in *Input) { in.Container.WorkingDir = "tmp" }},
	{"image's folder", "image.config.WorkingDir", func(in *Input) { in.Image.Config.WorkingDir = "tmp" }},
	{"group without user", sc + "run_as_group", func(in *Input) { security(in).RunAsGroup = &runtime.Int64Value{Value: 1} }},
	{"user twice", sc + "run_as_username", func(in *Input) {
		security(in).RunAsUser, security(in).RunAsUsername = &runtime.Int64Value{}, "root"
	}},
	{"user negative", sc + "run_as_user", func(in *Input) { security(in).RunAsUser = &runtime.Int64Value{Value: -1} }},
	{"group too large", sc + "run_as_group", func(in *Input) {
		security(in).RunAsUsername, security(in).RunAsGroup = "www", &runtime.Int64Value{Value: 1 << 32}
	}},
	{"supplemental group", sc + "supplemental_groups[1]", func(in *Input) { security(in).SupplementalGroups = []int64{1, -1} }},
	{"policy", sc + "supplemental_groups_policy", func(in *Input) { security(in).SupplementalGroupsPolicy = 9 }},
	{"privileged in a pod that is not", sc + "privileged", func(in *Input) { security(in).Privileged = true }},
	{"capability", sc + "capabilities.add_capabilities[1]", func(in *Input) {
		security(in).Capabilities = &runtime.Capability{AddCapabilities: []string{"ALL", "FLY"}}
	}},
	{"capability dropped", sc + "capabilities.drop_capabilities[0]", func(in *Input) {
		security(in).Capabilities = &runtime.Capability{DropCapabilities: []string{""}}
	}},
	{"capability ambient", sc + "capabilities.add_ambient_capabilities[0]", func(in *Input) {
		security(in).Capabilities = &runtime.Capability{AddAmbientCapabilities: []string{"CAP_"}}
	}},
	{"seccomp type", sc + "seccomp.profile_type", func(in *Input) { security(in).Seccomp = &runtime.SecurityProfile{ProfileType: 7} }},
	{"seccomp without file", sc + "seccomp.localhost_ref", func(in *Input) {
		security(in).Seccomp = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost}
	}},
	{"seccomp file relative", sc + "seccomp.localhost_ref", func(in *Input) { localhost(in, "p.json", `{}`) }},
	{"seccomp file empty", sc + "seccomp.localhost_ref", func(in *Input) { localhost(in, "/p.json", ``) }},
	{"seccomp that is none", sc + "seccomp.localhost_ref", func(in *Input) { localhost(in, "/p.json", `{}`) }},
	{"seccomp null", sc + "seccomp.localhost_ref", func(in *Input) { localhost(in, "/p.json", `null`) }},
	{"seccomp broken", sc + "seccomp.localhost_ref", func(in *Input) { localhost(in, "/p.json", `{"defaultAction":`) }},
	{"seccomp huge", sc + "seccomp.localhost_ref", func(in *Input) { localhost(in, "/p.json", strings.Repeat(" ", maxSeccompProfile+1)) }},
	{"seccomp name without type", sc + "seccomp.localhost_ref", func(in *Input) {
		security(in).Seccomp = &runtime.SecurityProfile{LocalhostRef: "/p.json"}
	}},
	{"seccomp old way", sc + "seccomp_profile_path", func(in *Input) { security(in).SeccompProfilePath = "p.json" }}, //nolint:staticcheck // the old way is the point
	{"apparmor type", sc + "apparmor.profile_type", func(in *Input) { security(in).Apparmor = &runtime.SecurityProfile{ProfileType: -1} }},
	{"apparmor name", sc + "apparmor", func(in *Input) {
		in.Host.AppArmor = true
		security(in).Apparmor = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: "a\nb"}
	}},
	{"apparmor old way", sc + "apparmor_profile", func(in *Input) { security(in).ApparmorProfile = "localhost/" }}, //nolint:staticcheck // the old way is the point
	{"SELinux label", sc + "selinux_options", func(in *Input) {
		in.Host.SELinux, in.SELinux.Mount = true, "a\"b"
	}},
	{"masked path", sc + "masked_paths[1]", func(in *Input) { security(in).MaskedPaths = []string{"/a", "b"} }},
	{"read-only path", sc + "readonly_paths[0]", func(in *Input) { security(in).ReadonlyPaths = []string{"/a\x00"} }},
	{"mode", sc + "namespace_options.ipc", func(in *Input) { security(in).NamespaceOptions = &runtime.NamespaceOption{Ipc: 8} }},
	{"target", sc + "namespace_options.target_id", func(in *Input) {
		security(in).NamespaceOptions = &runtime.NamespaceOption{Pid: runtime.NamespaceMode_TARGET}
	}},
	{"time namespace", sc + "namespace_options", func(in *Input) { in.NamespacePaths[specs.TimeNamespace] = "" }},
	{"namespace path", sc + "namespace_options", func(in *Input) { in.NamespacePaths[specs.PIDNamespace] = "ns" }},
	{"user namespace not the pod's", sc + "namespace_options.userns_options", func(in *Input) { mappedPod(in); in.Pod.Linux.SecurityContext = nil }},
	{"user namespace mode", sc + "namespace_options.userns_options.mode", func(in *Input) {
		mappedPod(in)
		security(in).NamespaceOptions.UsernsOptions.Mode = runtime.NamespaceMode_CONTAINER
	}},
	{"no range", sc + "namespace_options.userns_options.uids", func(in *Input) {
		mappedPod(in)
		security(in).NamespaceOptions.UsernsOptions.Uids = nil
	}},
	{"range beyond the end", sc + "namespace_options.userns_options.gids[0]", func(in *Input) {
		mappedPod(in)
		security(in).NamespaceOptions.UsernsOptions.Gids[0].HostId = math.MaxUint32
	}},
	{"range without root", sc + "namespace_options.userns_options.uids", func(in *Input) {
		mappedPod(in)
		security(in).NamespaceOptions.UsernsOptions.Uids[0].ContainerId = 1
	}},
	{"mappings without namespace", sc + "namespace_options.userns_options", func(in *Input) {
		in.UIDMappings = []specs.LinuxIDMapping{{Size: 1}}
	}},
	{"new namespace without mappings", sc + "namespace_options.userns_options", func(in *Input) { in.NamespacePaths[specs.UserNamespace] = "" }},
	{"user not mapped", sc + "run_as_user", func(in *Input) { mappedPod(in); in.User.UID = 70000 }},
	{"group not mapped", sc + "supplemental_groups", func(in *Input) { mappedPod(in); in.User.GID = 70000 }},
	{"mount on nothing", "mounts[0].container_path", func(in *Input) { in.Mounts[0].ContainerPath = "" }},
	{"mount on relative", "mounts[1].container_path", func(in *Input) { in.Mounts[1].ContainerPath = "a/b" }},
	{"mount on root", "mounts[0].container_path", func(in *Input) { in.Mounts[0].ContainerPath = "/a/.." }},
	{"mount of nothing", "mounts[0].host_path", func(in *Input) { in.Mounts[0].HostPath = "" }},
	{"nil mount", "mounts[0].container_path", func(in *Input) { in.Mounts[0] = nil }},
	{"propagation", "mounts[0].propagation", func(in *Input) { in.Mounts[0].Propagation = 5 }},
	{"recursive without readonly", "mounts[0].recursive_read_only", func(in *Input) { in.Mounts[0].RecursiveReadOnly = true }},
	{"recursive and shared", "mounts[1].recursive_read_only", func(in *Input) {
		in.Mounts[1].RecursiveReadOnly, in.Mounts[1].Propagation = true, runtime.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	}},
	{"shared image", "mounts[0].propagation", func(in *Input) {
		in.Mounts[0].Image, in.Mounts[0].Propagation = &runtime.ImageSpec{Image: "x"}, runtime.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}},
	{"mount option", "mounts[0].mount_options[1]", func(in *Input) { in.Mounts[0].MountOptions = []string{"noexec", "suid"} }},
	{"mount option with data", "mounts[0].mount_options[0]", func(in *Input) { in.Mounts[0].MountOptions = []string{"upperdir=/etc"} }},
	{"idmap without user namespace", "mounts[0].uidMappings", func(in *Input) {
		in.Mounts[0].UidMappings = []*runtime.IDMapping{{Length: 1}}
		in.Mounts[0].GidMappings = in.Mounts[0].UidMappings
	}},
	{"idmap by half", "mounts[0].gidMappings", func(in *Input) { in.Mounts[0].UidMappings = []*runtime.IDMapping{{Length: 1}} }},
	{"idmap empty range", "mounts[0].uidMappings[0]", func(in *Input) { in.Mounts[0].UidMappings = []*runtime.IDMapping{{}} }},
	{"device", "devices[0].host_path", func(in *Input) { in.Container.Devices = []*runtime.Device{{HostPath: "dev"}} }},
	{"device's place", "devices[0].container_path", func(in *Input) {
		in.Container.Devices = []*runtime.Device{{HostPath: "/dev/x", ContainerPath: "x"}}
	}},
	{"device permissions", "devices[0].permissions", func(in *Input) {
		in.Container.Devices = []*runtime.Device{{HostPath: "/dev/x", Permissions: "rr"}}
	}},
	{"found device", "devices", func(in *Input) { in.Devices = []Device{{ContainerPath: "/dev/x", Type: "x"}} }},
	{"OOM score", "linux.resources.oom_score_adj", func(in *Input) { limits(in).OomScoreAdj = -1001 }},
	{"shares", "linux.resources.cpu_shares", func(in *Input) { limits(in).CpuShares = -1 }},
	{"period", "linux.resources.cpu_period", func(in *Input) { limits(in).CpuPeriod = 999 }},
	{"quota", "linux.resources.cpu_quota", func(in *Input) { limits(in).CpuQuota = 1 }},
	{"cpus", "linux.resources.cpuset_cpus", func(in *Input) { limits(in).CpusetCpus = "3-1" }},
	{"mems", "linux.resources.cpuset_mems", func(in *Input) { limits(in).CpusetMems = "0,\n1" }},
	{"memory", "linux.resources.memory_limit_in_bytes", func(in *Input) { limits(in).MemoryLimitInBytes = -2 }},
	{"swap below memory", "linux.resources.memory_swap_limit_in_bytes", func(in *Input) { limits(in).MemorySwapLimitInBytes = 5 }},
	{"swap alone", "linux.resources.memory_swap_limit_in_bytes", func(in *Input) {
		limits(in).MemoryLimitInBytes, limits(in).MemorySwapLimitInBytes = 0, 5
	}},
	{"page size", "linux.resources.hugepage_limits[0].page_size", func(in *Input) { limits(in).HugepageLimits[0].PageSize = "../2MB" }},
	{"unified file", "linux.resources.unified", func(in *Input) { limits(in).Unified = map[string]string{"../memory.max": "1"} }},
	{"unified core file", "linux.resources.unified", func(in *Input) { limits(in).Unified = map[string]string{"cgroup.procs": "1"} }},
}

func security(in *Input) *runtime.LinuxContainerSecurityContext {
	return in.Container.Linux.SecurityContext
}

func limits(in *Input) *runtime.LinuxContainerResources { return in.Container.Linux.Resources }

func localhost(in *Input, path, profile string) {
	security(in).Seccomp = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: path}
	in.SeccompProfile = []byte(profile)
}

func TestInvalidFields(t *testing.T) {
	for _, c := range invalidInputs {
		in := plain()
		c.change(&in)
		s, err := Build(in)
		refused(t, c.name, err, c.field)
		if s != nil {
			t.Errorf("%s: a specification beside the error", c.name)
		}
	}
}

// TestHostLacks checks that what a host cannot do is an error, never passed over.
func TestHostLacks(t *testing.T) {
	for _, c := range []struct {
		name, field string
		change      func(*Input)
	}{
		{"seccomp", sc + "seccomp", func(in *Input) { security(in).Seccomp = &runtime.SecurityProfile{} }},
		{"apparmor", sc + "apparmor", func(in *Input) { security(in).Apparmor = &runtime.SecurityProfile{} }},
		{"apparmor localhost", sc + "apparmor_profile", func(in *Input) { security(in).ApparmorProfile = "localhost/p" }}, //nolint:staticcheck // the old way is the point
		{"SELinux", sc + "selinux_options", func(in *Input) { in.SELinux.Process = "a:b:c:s0" }},
		{"capability", sc + "capabilities.add_capabilities", func(in *Input) {
			in.Host.Capabilities = []string{"CAP_CHOWN"}
			security(in).Capabilities = &runtime.Capability{AddCapabilities: []string{"SYS_RESOURCE"}}
		}},
		{"rro", "mounts[1].recursive_read_only", func(in *Input) { in.Mounts[1].RecursiveReadOnly = true }},
		{"idmap", "mounts[0].uidMappings", func(in *Input) {
			mappedPod(in)
			in.Mounts[0].UidMappings = []*runtime.IDMapping{{Length: 1}}
			in.Mounts[0].GidMappings = in.Mounts[0].UidMappings
		}},
		{"swap", "linux.resources.memory_swap_limit_in_bytes", func(in *Input) { limits(in).MemorySwapLimitInBytes = 1 << 30 }},
		{"huge pages", "linux.resources.hugepage_limits[0].limit", func(in *Input) { limits(in).HugepageLimits[0].Limit = 1 }},
		{"unified", "linux.resources.unified", func(in *Input) { limits(in).Unified = map[string]string{"memory.high": "1"} }},
	} {
		in := plain()
		in.Host = Features{}
		c.change(&in)
		if _, err := Build(in); !errdefs.IsFailedPrecondition(err) || !strings.HasPrefix(err.Error(), c.field+":") {
			t.Errorf("%s: %v; want FailedPrecondition of %s", c.name, err, c.field)
		}
	}
	in := plain()
	in.Host = Features{}
	if _, err := Build(in); err != nil {
		t.Errorf("a plain container on a bare host: %v", err)
	}
}

// The limit of tasks is the one file of cgroup v2 that v1 has under another
// name; CRI has no other word for it.
func TestPidsLimitWithoutCgroupV2(t *testing.T) {
	for value, want := range map[string]int64{"50": 50, "max": -1} {
		in := plain()
		in.Host, in.PidsLimit = Features{}, 7
		limits(&in).Unified = map[string]string{"pids.max": value}
		s, err := Build(in)
		if err != nil || s.Linux.Resources.Pids == nil || *s.Linux.Resources.Pids.Limit != want || s.Linux.Resources.Unified != nil {
			t.Errorf("%s: %v", value, err)
		}
	}
	for _, value := range []string{"", "-1", "many"} {
		in := plain()
		in.Host = Features{}
		limits(&in).Unified = map[string]string{"pids.max": value}
		if _, err := Build(in); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestEditFails(t *testing.T) {
	in := plain()
	in.Edit = func(*specs.Spec) error { return errors.New("no such device") }
	if _, err := Build(in); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Error(err)
	}
	in.Edit = func(s *specs.Spec) error {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/a"})
		return nil
	}
	s, err := Build(in)
	if err != nil || s.Mounts[len(s.Mounts)-1].Destination == "/a" {
		t.Errorf("an edit's mount takes no part in the order: %v", err)
	}
}
