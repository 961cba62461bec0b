package spec

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CVE-2022-29162, CVE-2022-27652, CVE-2022-24769: inheritable capabilities.
func TestCVE202229162InheritableCapabilitiesAreEmpty(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"plain":      func(*Input) {},
		"privileged": privileged,
		"all":        func(in *Input) { security(in).Capabilities = &runtime.Capability{AddCapabilities: []string{"ALL"}} },
		"other user": func(in *Input) { in.User.UID = 1000 },
	} {
		in := plain()
		change(&in)
		s, err := Build(in)
		if err != nil {
			t.Fatal(err)
		}
		processes := []*specs.Process{s.Process}
		for _, opts := range []ExecOptions{{Args: []string{"a"}}, {Args: []string{"a"}, Privileged: true}} {
			p, err := Exec(s, opts)
			if err != nil {
				t.Fatal(err)
			}
			processes = append(processes, p)
		}
		for i, p := range processes {
			if n := len(p.Capabilities.Inheritable) + len(p.Capabilities.Ambient); n != 0 {
				t.Errorf("%s, process %d: %d inheritable and ambient", name, i, n)
			}
		}
	}
}

// CVE-2021-21334: variables of one container in another of the same image.
func TestCVE202121334EnvironmentsAreApart(t *testing.T) {
	image := &ocispec.Image{Config: ocispec.ImageConfig{Env: make([]string, 1, 64), Cmd: []string{"sh"}}}
	image.Config.Env[0] = "PATH=/bin"
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				in := plain()
				in.Image = image
				secret := fmt.Sprintf("secret-%d", i)
				in.Container.Envs = []*runtime.KeyValue{{Key: "SECRET", Value: []byte(secret)}, {Key: fmt.Sprintf("OWN%d", i), Value: []byte("1")}}
				s, err := Build(in)
				if err != nil {
					t.Error(err)
					return
				}
				want := []string{"PATH=/bin", "HOSTNAME=pod-1", "SECRET=" + secret, fmt.Sprintf("OWN%d=1", i)}
				if d := cmp.Diff(want, s.Process.Env); d != "" {
					t.Error(d)
				}
			}
		})
	}
	wg.Wait()
	if len(image.Config.Env) != 1 || image.Config.Env[:2][1] != "" {
		t.Error("the image's list was written to")
	}
}

// CVE-2022-0811, CVE-2022-0532: sysctls that bring others along, or change the host.
func TestCVE20220811Sysctls(t *testing.T) {
	pod := func(name, value string, network, ipc runtime.NamespaceMode) error {
		return ValidateSysctls(&runtime.PodSandboxConfig{Linux: &runtime.LinuxPodSandboxConfig{
			Sysctls: map[string]string{name: value},
			SecurityContext: &runtime.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtime.NamespaceOption{Network: network, Ipc: ipc},
			},
		}})
	}
	const own, host = runtime.NamespaceMode_POD, runtime.NamespaceMode_NODE
	for name, value := range map[string]string{
		"net.ipv4.ip_forward": "1", "net/ipv4/ip_forward": "1", "kernel.shm_rmid_forced": "0", "fs.mqueue.msg_max": "100",
		"net.ipv4.ip_local_port_range": "1024 65535", "net.ipv4.conf.eth0/1.forwarding": "1", "net.ipv4.ip_local_reserved_ports": "",
		"net.ipv4.tcp_congestion_control": "cubic", "kernel.sem": "250 32000\t100 128",
	} {
		if err := pod(name, value, own, own); err != nil {
			t.Errorf("%s=%s: %v", name, value, err)
		}
		if err := pod(name, value, host, host); err == nil {
			t.Errorf("%s=%s would change the host", name, value)
		}
	}
	for _, value := range []string{"1+kernel.core_pattern=|/bin/sh", "1\nkernel.core_pattern=x", "1;2", "1\x00", "a=b", "|/bin/sh", strings.Repeat("1", 2000)} {
		err := pod("kernel.shm_rmid_forced", value, own, own)
		refused(t, value, err, "linux.sysctls[kernel.shm_rmid_forced]")
	}
	for _, name := range []string{
		"kernel.core_pattern", "kernel.domainname", "vm.overcommit_memory", "net", "", "net.", "net..x", "net/../kernel/core_pattern",
		"net.ipv4/../../kernel.core_pattern", "/net/x", "net.x\n", "fs.mqueue", "fs/mqueue/../../kernel/panic", "user.max_user_namespaces", "net.a b",
		"kernel/shmmax/..", strings.Repeat("net.", 100) + "x",
	} {
		if err := pod(name, "1", own, own); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
	if err := ValidateSysctls(&runtime.PodSandboxConfig{}); err != nil {
		t.Error(err)
	}
}

func TestSysctlPath(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.ip_forward": "net/ipv4/ip_forward", "net/ipv4/ip_forward": "net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/1.x": "net/ipv4/conf/eth0.1/x", "net/ipv4/conf/eth0.1/x": "net/ipv4/conf/eth0.1/x",
	} {
		if got := SysctlPath(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// CVE-2024-3154, CVE-2023-6476: annotations that steer the runtime.
func TestCVE20243154AnnotationsDecideNothing(t *testing.T) {
	without, err := Build(plain())
	if err != nil {
		t.Fatal(err)
	}
	in := plain()
	hostile := map[string]string{
		"org.systemd.property.ExecStartPre": "['/bin/sh']", "org.systemd.property.MemoryMax": "1", "org.criu.config": "/etc/shadow",
		"bundle": "/etc", "a=b": "c", "run.oci.keep_original_groups": "1", "": "x",
	}
	for k, v := range hostile {
		in.Container.Annotations[k] = v
	}
	in.Pod.Annotations = hostile
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(without, s); d != "" {
		t.Error(d)
	}
	if s.Annotations["odd"] != " \n\"x" {
		t.Errorf("%q", s.Annotations)
	}
}

// CVE-2024-21626: a working folder that is a leaked descriptor.
func TestCVE202421626WorkingFolder(t *testing.T) {
	base, err := Build(plain())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{
		"/proc/self/fd/7", "/proc/self/fd/7/../../..", "/proc//self/./fd/8/", "/proc/1/fd/3", "/proc/thread-self/fd/3", "/proc/self/task/1/fd/4",
		"/x/../proc/self/fd/9", "/proc/1/cwd", "/proc/1/root/etc", "/proc/self/map_files/x",
	} {
		in := plain()
		in.Container.WorkingDir = dir
		_, err := Build(in)
		if strings.HasSuffix(dir, "..") && err == nil {
			continue // it leads elsewhere once cleaned, and the kernel resolves it below the container's root
		}
		refused(t, dir, err, "working_dir")
		_, err = Exec(base, ExecOptions{Args: []string{"a"}, Cwd: dir})
		refused(t, dir, err, "cwd")
	}
	for _, dir := range []string{"/proc", "/proc/self", "/srv/fd/3", "/proc/sys/fs"} {
		in := plain()
		in.Container.WorkingDir = dir
		if _, err := Build(in); err != nil {
			t.Error(err)
		}
	}
}

// CVE-2023-25173, CVE-2022-2995, CVE-2022-36109: the primary group is a supplemental one too.
func TestCVE202325173Groups(t *testing.T) {
	in := plain()
	in.User = User{UID: 1, GID: 7, AdditionalGids: []uint32{50, 7}}
	security(&in).SupplementalGroups = []int64{60, 50}
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := []uint32{7, 50, 60}; !slices.Equal(s.Process.User.AdditionalGids, want) {
		t.Errorf("%v, want %v", s.Process.User.AdditionalGids, want)
	}
}

// CVE-2024-40635: IDs beyond int32 that wrap to root.
func TestCVE202440635LargeIDs(t *testing.T) {
	for _, id := range []int64{1 << 31, 1<<32 - 1, 1 << 32, 1 << 40, -1} {
		in := plain()
		security(&in).RunAsUser = &runtime.Int64Value{Value: id}
		_, err := Build(in)
		refused(t, fmt.Sprint(id), err, sc+"run_as_user")
	}
}

// CVE-2023-25809: the cgroup mount is read-only unless the container is privileged.
func TestCVE202325809CgroupReadOnly(t *testing.T) {
	for _, c := range []struct {
		change func(*Input)
		want   string
	}{{func(*Input) {}, "ro"}, {mappedPod, "ro"}, {privileged, "rw"}} {
		in := plain()
		c.change(&in)
		s, err := Build(in)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/sys/fs/cgroup" })
		if !slices.Contains(s.Mounts[i].Options, c.want) {
			t.Errorf("%v, want %s", s.Mounts[i].Options, c.want)
		}
	}
}

func TestSeccomp(t *testing.T) {
	const def, off = runtime.SecurityProfile_RuntimeDefault, runtime.SecurityProfile_Unconfined
	for _, c := range []struct {
		name     string
		filtered bool
		change   func(*Input)
	}{
		{"nothing said", false, func(*Input) {}},
		{"default", true, func(in *Input) { security(in).Seccomp = &runtime.SecurityProfile{ProfileType: def} }},
		{"unconfined", false, func(in *Input) { security(in).Seccomp = &runtime.SecurityProfile{ProfileType: off} }},
		{"old default", true, func(in *Input) { security(in).SeccompProfilePath = "runtime/default" }}, //nolint:staticcheck // the old way is the point
		{"old unconfined", false, func(in *Input) { security(in).SeccompProfilePath = "unconfined" }},  //nolint:staticcheck // the old way is the point
		{"new wins", false, func(in *Input) {
			security(in).SeccompProfilePath = "runtime/default" //nolint:staticcheck // the old way is the point
			security(in).Seccomp = &runtime.SecurityProfile{ProfileType: off}
		}},
		{"privileged", false, func(in *Input) { privileged(in); security(in).Seccomp = &runtime.SecurityProfile{ProfileType: def} }},
	} {
		in := plain()
		c.change(&in)
		s, err := Build(in)
		if err != nil || (s.Linux.Seccomp != nil) != c.filtered {
			t.Errorf("%s: %v, %v", c.name, s.Linux.Seccomp != nil, err)
		}
	}
}

// TestSeccompFollowsCapabilities: mount needs CAP_SYS_ADMIN; io_uring and the
// kernel's crypto sockets are not for containers at all.
func TestSeccompFollowsCapabilities(t *testing.T) {
	allowed := func(add ...string) map[string]bool {
		in := plain()
		security(&in).Seccomp = &runtime.SecurityProfile{}
		security(&in).Capabilities = &runtime.Capability{AddCapabilities: add}
		s, err := Build(in)
		if err != nil {
			t.Fatal(err)
		}
		out := make(map[string]bool)
		for _, call := range s.Linux.Seccomp.Syscalls {
			for _, name := range call.Names {
				if call.Action == specs.ActAllow && len(call.Args) == 0 {
					out[name] = true
				}
			}
		}
		return out
	}
	plainly, admin := allowed(), allowed("SYS_ADMIN")
	if plainly["mount"] || !admin["mount"] || !plainly["read"] {
		t.Error("the filter does not follow the capabilities")
	}
	if plainly["io_uring_setup"] || plainly["socket"] {
		t.Error("the default profile lets io_uring or every kind of socket through")
	}
}

func TestSeccompProfilePath(t *testing.T) {
	sec := &runtime.LinuxContainerSecurityContext{}
	if p, err := SeccompProfilePath(sec); p != "" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
	sec.SeccompProfilePath = "localhost//var/lib/kubelet/seccomp/p.json" //nolint:staticcheck // the old way is the point
	if p, err := SeccompProfilePath(sec); p != "/var/lib/kubelet/seccomp/p.json" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
	sec.Privileged = true
	if p, err := SeccompProfilePath(sec); p != "" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
}

func TestAppArmorAndSELinux(t *testing.T) {
	const localhost = runtime.SecurityProfile_Localhost
	for _, c := range []struct {
		name, want string
		change     func(*Input)
	}{
		{"nothing said", "default", func(*Input) {}},
		{"default", "default", func(in *Input) { security(in).Apparmor = &runtime.SecurityProfile{} }},
		{"unconfined", "unconfined", func(in *Input) {
			security(in).Apparmor = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined}
		}},
		{"own", "mine", func(in *Input) {
			security(in).Apparmor = &runtime.SecurityProfile{ProfileType: localhost, LocalhostRef: "localhost/mine"}
		}},
		{"old own", "mine", func(in *Input) { security(in).ApparmorProfile = "localhost/mine" }},         //nolint:staticcheck // the old way is the point
		{"old default", "default", func(in *Input) { security(in).ApparmorProfile = "runtime/default" }}, //nolint:staticcheck // the old way is the point
		{"privileged", "", privileged},
	} {
		in := plain()
		in.Host.AppArmor, in.Host.AppArmorDefault, in.Host.SELinux = true, "default", true
		in.SELinux = SELinuxLabels{Process: "u:r:t:s0", Mount: "u:r:f:s0"}
		c.change(&in)
		s, err := Build(in)
		if err != nil {
			t.Fatal(err)
		}
		if s.Process.ApparmorProfile != c.want {
			t.Errorf("%s: profile %q, want %q", c.name, s.Process.ApparmorProfile, c.want)
		}
		if confined := s.Process.SelinuxLabel != ""; confined == (c.name == "privileged") || s.Linux.MountLabel != "u:r:f:s0" {
			t.Errorf("%s: labels %q, %q", c.name, s.Process.SelinuxLabel, s.Linux.MountLabel)
		}
	}
}
