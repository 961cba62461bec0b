package spec

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// plain is the input of an ordinary pod's container on a host with v1.
func plain() Input {
	return Input{
		ID: "c0ffee",
		Container: &runtime.ContainerConfig{
			Metadata:    &runtime.ContainerMetadata{Name: "web"},
			Args:        []string{"-g", "daemon off;"},
			Envs:        []*runtime.KeyValue{{Key: "PORT", Value: []byte("80")}, {Key: "BYTES", Value: []byte("a=\xff")}},
			Annotations: map[string]string{"io.kubernetes.container.hash": "1234", "odd": " \n\"x"},
			Linux: &runtime.LinuxContainerConfig{
				Resources: &runtime.LinuxContainerResources{
					CpuShares: 102, CpuQuota: 20000, CpuPeriod: 100000, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 990,
					HugepageLimits: []*runtime.HugepageLimit{{PageSize: "2MB"}},
				},
				SecurityContext: &runtime.LinuxContainerSecurityContext{
					MaskedPaths:   []string{"/proc/kcore"},
					ReadonlyPaths: []string{"/proc/sys"},
				},
			},
		},
		Pod: &runtime.PodSandboxConfig{Hostname: "pod-1", Linux: &runtime.LinuxPodSandboxConfig{}},
		Image: &ocispec.Image{Config: ocispec.ImageConfig{
			Env: []string{"PATH=/bin", "VERSION=1"}, Entrypoint: []string{"nginx"}, Cmd: []string{"-h"}, WorkingDir: "/srv",
		}},
		Rootfs: "/run/nodeagent/containers/c0ffee/rootfs",
		NamespacePaths: map[specs.LinuxNamespaceType]string{
			specs.NetworkNamespace: "/run/nodeagent/sandboxes/p/ns/net", specs.IPCNamespace: "/run/nodeagent/sandboxes/p/ns/ipc",
			specs.UTSNamespace: "/run/nodeagent/sandboxes/p/ns/uts", specs.PIDNamespace: "",
		},
		Mounts: []*runtime.Mount{
			{ContainerPath: "/var/lib/data/", HostPath: "/srv/data"},
			{ContainerPath: "/var", HostPath: "/srv/var", Readonly: true},
		},
		CgroupsPath: "/kubepods/burstable/pod1/c0ffee",
		Files:       Files{Hosts: "/s/hosts", Hostname: "/s/hostname", ResolvConf: "/s/resolv.conf"},
		ShmPath:     "/s/shm",
		Host:        Features{Cgroups: CgroupHybrid, Seccomp: true, Swap: true, HugeTLB: true, RecursiveReadOnly: true, IDMap: true},
	}
}

// privileged changes the input to a privileged container.
func privileged(in *Input) {
	in.Container.Linux.SecurityContext.Privileged = true
	in.Pod.Linux.SecurityContext = &runtime.LinuxSandboxSecurityContext{Privileged: true}
}

// mappedPod changes the input to a pod with a user namespace.
func mappedPod(in *Input) {
	users := &runtime.UserNamespace{
		Mode: runtime.NamespaceMode_POD,
		Uids: []*runtime.IDMapping{{HostId: 65536, Length: 65536}},
		Gids: []*runtime.IDMapping{{HostId: 65536, Length: 65536}},
	}
	in.Container.Linux.SecurityContext.NamespaceOptions = &runtime.NamespaceOption{UsernsOptions: users}
	in.Pod.Linux.SecurityContext = &runtime.LinuxSandboxSecurityContext{NamespaceOptions: &runtime.NamespaceOption{UsernsOptions: users}}
	in.NamespacePaths[specs.UserNamespace] = "/run/nodeagent/sandboxes/p/ns/user"
	in.UIDMappings = []specs.LinuxIDMapping{{HostID: 65536, Size: 65536}}
	in.GIDMappings = in.UIDMappings
}

func TestGolden(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"plain": func(*Input) {},
		"privileged": func(in *Input) {
			privileged(in)
			in.HostDevices = []Device{{ContainerPath: "/dev/sda", HostPath: "/dev/sda", Type: "b", Major: 8, Mode: 0o660, GID: 6, Permissions: "rwm"}}
		},
		"userns": func(in *Input) {
			mappedPod(in)
			in.Mounts[0].UidMappings = []*runtime.IDMapping{{HostId: 65536, Length: 65536}}
			in.Mounts[0].GidMappings = []*runtime.IDMapping{{HostId: 65536, Length: 65536}}
		},
		"hostnetwork": func(in *Input) {
			delete(in.NamespacePaths, specs.NetworkNamespace)
			in.Hostname = "node-1"
			in.Files = Files{}
		},
		"hostnetwork-userns": func(in *Input) {
			mappedPod(in)
			delete(in.NamespacePaths, specs.NetworkNamespace)
		},
		"readonly": func(in *Input) {
			sec := in.Container.Linux.SecurityContext
			sec.ReadonlyRootfs, sec.NoNewPrivs = true, true
			sec.Capabilities = &runtime.Capability{DropCapabilities: []string{"all"}, AddCapabilities: []string{"net_bind_service"}}
			sec.SupplementalGroups = []int64{2000, 1000}
			in.User = User{UID: 1000, GID: 1000, AdditionalGids: []uint32{50}}
			in.Mounts = append(in.Mounts, &runtime.Mount{
				ContainerPath: "/ro", HostPath: "/srv/ro", Readonly: true, RecursiveReadOnly: true, MountOptions: []string{"noexec", "nosuid"},
			})
		},
		"tty": func(in *Input) {
			in.Container.Tty = true
			in.Container.Linux.SecurityContext.Seccomp = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: "/p.json"}
			in.SeccompProfile = []byte(`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}`)
		},
		"v2": func(in *Input) {
			in.Host.Cgroups = CgroupV2
			in.Container.Linux.Resources.Unified = map[string]string{"memory.high": "1000"}
			in.PidsLimit = 100
			in.ShmPath = ""
			in.DefaultMasks = true
			in.Container.Linux.SecurityContext.MaskedPaths = nil
			in.Container.Linux.SecurityContext.ReadonlyPaths = nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := plain()
			change(&in)
			s, err := Build(in)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(s, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".json", append(got, '\n'))
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", path, d)
	}
}

func TestBuildKeepsItsInput(t *testing.T) {
	in, same := plain(), plain()
	mappedPod(&in)
	mappedPod(&same)
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	scribble(s)
	if d := cmp.Diff(same, in, cmp.Comparer(func(a, b *runtime.ContainerConfig) bool { return a.String() == b.String() }),
		cmp.Comparer(func(a, b *runtime.PodSandboxConfig) bool { return a.String() == b.String() }),
		cmp.Comparer(func(a, b *runtime.Mount) bool { return a.String() == b.String() })); d != "" {
		t.Error(d)
	}
}

// scribble writes over every list of a specification.
func scribble(s *specs.Spec) {
	lists := [][]string{s.Process.Args, s.Process.Env, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths, s.Process.Capabilities.Bounding}
	for _, m := range s.Mounts {
		lists = append(lists, m.Options)
	}
	for _, l := range lists {
		for i := range l {
			l[i] = "scribbled"
		}
		_ = append(l[:0], "scribbled")
	}
	for i := range s.Linux.UIDMappings {
		s.Linux.UIDMappings[i].HostID = 7
	}
	for k := range s.Annotations {
		s.Annotations[k] = "scribbled"
	}
	for k := range s.Linux.Resources.Unified {
		s.Linux.Resources.Unified[k] = "scribbled"
	}
}

func TestArgs(t *testing.T) {
	words := func(s ...string) []string { return s }
	for _, c := range []struct {
		name                               string
		command, args, entrypoint, cmd, is []string
	}{
		{"image alone", nil, nil, words("e"), words("c"), words("e", "c")},
		{"arguments replace the image's", nil, words("a"), words("e"), words("c"), words("e", "a")},
		{"a command replaces both", words("x"), nil, words("e"), words("c"), words("x")},
		{"both", words("x"), words("a"), words("e"), words("c"), words("x", "a")},
		{"entrypoint taken back", nil, nil, words(""), words("c"), words("c")},
		{"arguments alone", nil, words("a"), nil, nil, words("a")},
		{"nothing", nil, nil, nil, nil, nil},
		{"empty word", words(""), words("a"), nil, nil, words("", "a")}, // it is not found when it starts
		{"NUL", words("a\x00b"), nil, nil, nil, nil},
	} {
		in := plain()
		in.Container.Command, in.Container.Args = c.command, c.args
		in.Image.Config.Entrypoint, in.Image.Config.Cmd = c.entrypoint, c.cmd
		s, err := Build(in)
		if c.is == nil {
			field := "command"
			if c.name == "NUL" {
				field = "command[0]"
			}
			refused(t, c.name, err, field)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if d := cmp.Diff(c.is, s.Process.Args); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	in := plain()
	in.Image, in.Container.Command = nil, words("sh")
	if s, err := Build(in); err != nil || s.Process.Cwd != "/" || s.Process.Env[0] != defaultPath {
		t.Errorf("no image: %v", err)
	}
}

func TestCapabilities(t *testing.T) {
	all := len(knownCapabilities)
	for _, c := range []struct {
		name               string
		add, drop, ambient []string
		count              int
		has, lacks         string
	}{
		{"default", nil, nil, nil, len(defaultCapabilities), "CAP_CHOWN", "CAP_SYS_ADMIN"},
		{"add", []string{"SYS_ADMIN", "cap_sys_admin"}, nil, nil, len(defaultCapabilities) + 1, "CAP_SYS_ADMIN", ""},
		{"add all", []string{"ALL"}, nil, nil, all, "CAP_SYS_ADMIN", ""},
		{"add all but one", []string{"all"}, []string{"SYS_ADMIN"}, nil, all - 1, "CAP_BPF", "CAP_SYS_ADMIN"},
		{"drop one", nil, []string{"CAP_CHOWN"}, nil, len(defaultCapabilities) - 1, "CAP_KILL", "CAP_CHOWN"},
		{"drop all", nil, []string{"ALL"}, nil, 0, "", "CAP_CHOWN"},
		{"drop all add one", []string{"chown"}, []string{"ALL"}, nil, 1, "CAP_CHOWN", "CAP_KILL"},
		{"add and drop all", []string{"ALL"}, []string{"ALL"}, nil, 0, "", "CAP_CHOWN"},
		{"ambient", nil, []string{"ALL"}, []string{"NET_BIND_SERVICE"}, 1, "CAP_NET_BIND_SERVICE", "CAP_KILL"},
	} {
		in := plain()
		in.Container.Linux.SecurityContext.Capabilities = &runtime.Capability{
			AddCapabilities: c.add, DropCapabilities: c.drop, AddAmbientCapabilities: c.ambient,
		}
		s, err := Build(in)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		caps := s.Process.Capabilities
		has := map[string]bool{"": true}
		for _, name := range caps.Bounding {
			has[name] = true
		}
		if len(caps.Bounding) != c.count || !has[c.has] || c.lacks != "" && has[c.lacks] {
			t.Errorf("%s: %v", c.name, caps.Bounding)
		}
		if len(caps.Ambient) != len(c.ambient) || !cmp.Equal(caps.Effective, caps.Bounding) || !cmp.Equal(caps.Permitted, caps.Bounding) {
			t.Errorf("%s: %+v", c.name, caps)
		}
	}
}

func TestPropagation(t *testing.T) {
	const private, slave, shared = runtime.MountPropagation_PROPAGATION_PRIVATE, runtime.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
		runtime.MountPropagation_PROPAGATION_BIDIRECTIONAL
	for _, c := range []struct {
		a, b runtime.MountPropagation
		root string
	}{
		{private, private, ""}, {private, slave, "rslave"}, {slave, shared, "rshared"}, {shared, slave, "rshared"}, {shared, private, "rshared"},
	} {
		in := plain()
		in.Mounts[0].Propagation, in.Mounts[1].Propagation = c.a, c.b
		s, err := Build(in)
		if err != nil || s.Linux.RootfsPropagation != c.root {
			t.Errorf("%s with %s: root is %q, %v; want %q", c.a, c.b, s.Linux.RootfsPropagation, err, c.root)
		}
	}
}

// TestMountsTakeThePlaceOfDefaults also sees to it that each destination is mounted once.
func TestMountsTakeThePlaceOfDefaults(t *testing.T) {
	in := plain()
	for _, where := range []string{"/etc/hosts", "/dev/shm/", "/sys", "/proc", "/dev"} {
		in.Mounts = append(in.Mounts, &runtime.Mount{ContainerPath: where, HostPath: "/host" + where})
	}
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]string)
	last := 0
	for _, m := range s.Mounts {
		if was, again := seen[m.Destination]; again {
			t.Errorf("%s is mounted from %s and %s", m.Destination, was, m.Source)
		}
		seen[m.Destination] = m.Source
		if d := depth(m.Destination); d < last {
			t.Errorf("%s comes too late", m.Destination)
		} else {
			last = d
		}
	}
	if seen["/etc/hosts"] != "/host/etc/hosts" || seen["/dev/shm"] != "/host/dev/shm/" || seen["/etc/hostname"] != "/s/hostname" {
		t.Errorf("%v", seen)
	}
}

func TestExec(t *testing.T) {
	base, err := Build(plain())
	if err != nil {
		t.Fatal(err)
	}
	before, _ := json.Marshal(base)
	p, err := Exec(base, ExecOptions{
		Args: []string{"sh"}, Env: []string{"VERSION=2", "NEW=1"}, Cwd: "/tmp", User: &User{UID: 5, GID: 6},
		Terminal: true, Width: 80, Height: 24,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"PATH=/bin", "HOSTNAME=pod-1", "VERSION=2", "PORT=80", "BYTES=a=\xff", "TERM=xterm", "NEW=1"}
	if d := cmp.Diff(want, p.Env); d != "" {
		t.Error(d)
	}
	if p.Cwd != "/tmp" || p.User.UID != 5 || !cmp.Equal(p.User.AdditionalGids, []uint32{6}) || !p.Terminal || p.ConsoleSize.Width != 80 {
		t.Errorf("%+v", p)
	}
	p.Args[0], p.Env[0], p.Capabilities.Bounding[0] = "x", "x", "x"
	if after, _ := json.Marshal(base); string(after) != string(before) {
		t.Error("Exec changed the container's specification")
	}
	p, err = Exec(base, ExecOptions{Args: []string{"sh"}, Privileged: true})
	if err != nil || len(p.Capabilities.Bounding) != len(knownCapabilities) || p.Cwd != "/srv" {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = Exec(base, ExecOptions{Args: []string{"sh"}, Env: []string{"PORT", "NEW", "NEW=1", "VERSION", "BYTES=b"}})
	if err != nil || !cmp.Equal(p.Env, []string{"PATH=/bin", "HOSTNAME=pod-1", "BYTES=b", "NEW=1"}) {
		t.Errorf("without some variables: %q, %v", p.Env, err)
	}
	for field, opts := range map[string]ExecOptions{
		"cmd": {}, "env[0]": {Args: []string{"a"}, Env: []string{"=x"}}, "cwd": {Args: []string{"a"}, Cwd: "rel"},
	} {
		_, err := Exec(base, opts)
		refused(t, field, err, field)
	}
	if _, err := Exec(nil, ExecOptions{Args: []string{"a"}}); err == nil {
		t.Error("no container is no error")
	}
}

// A runtime handler may keep the host's devices from privileged containers.
func TestNoHostDevices(t *testing.T) {
	in := plain()
	privileged(&in)
	in.NoHostDevices = true
	in.Devices = []Device{{ContainerPath: "/dev/fuse", HostPath: "/dev/fuse", Type: "c", Major: 10, Minor: 229, Permissions: "rw"}}
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	rules := s.Linux.Resources.Devices
	if len(s.Linux.Devices) != 1 || len(rules) != 2 || rules[0].Allow || !rules[1].Allow || *rules[1].Minor != 229 {
		t.Errorf("devices %+v, rules %+v", s.Linux.Devices, rules)
	}
}
