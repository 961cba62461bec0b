package spec

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FuzzBuild takes any configuration that can come over the wire.
func FuzzBuild(f *testing.F) {
	for _, change := range []func(*Input){func(*Input) {}, privileged, mappedPod} {
		in := plain()
		change(&in)
		in.Container.Mounts = in.Mounts
		f.Add(marshal(f, in.Container), marshal(f, in.Pod), "PATH=/bin", "/srv", []byte(`{"defaultAction":"SCMP_ACT_ERRNO"}`))
	}
	f.Fuzz(func(t *testing.T, container, pod []byte, env, dir string, profile []byte) {
		in := plain()
		in.Container, in.Pod = &runtime.ContainerConfig{}, &runtime.PodSandboxConfig{}
		if proto.Unmarshal(container, in.Container) != nil || proto.Unmarshal(pod, in.Pod) != nil {
			return
		}
		in.Image = &ocispec.Image{Config: ocispec.ImageConfig{Env: []string{env}, WorkingDir: dir, Cmd: []string{dir}}}
		in.Mounts, in.SeccompProfile = in.Container.GetMounts(), profile
		uids, gids, on, err := ParseUserNamespace(in.Pod.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions())
		if err == nil && on {
			in.NamespacePaths[specs.UserNamespace] = "/ns/user"
			in.UIDMappings, in.GIDMappings = uids, gids
		}
		_ = ValidateSysctls(in.Pod)
		s, err := Build(in)
		if err != nil {
			if s != nil || !errdefs.IsInvalidArgument(err) && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("%v, %v", s, err)
			}
			return
		}
		holds(t, &in, s)
		p, err := Exec(s, ExecOptions{Args: []string{"x"}, Env: []string{env}, Cwd: dir})
		if err == nil {
			processHolds(t, p)
		}
	})
}

func marshal(f *testing.F, m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	return data
}

// holds checks what is true of every specification.
func holds(t *testing.T, in *Input, s *specs.Spec) {
	processHolds(t, s.Process)
	sec := in.Container.GetLinux().GetSecurityContext()
	caps := s.Process.Capabilities
	if len(sec.GetCapabilities().GetAddAmbientCapabilities()) == 0 && len(caps.Inheritable)+len(caps.Ambient) > 0 {
		t.Errorf("inheritable %v, ambient %v", caps.Inheritable, caps.Ambient)
	}
	if !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace && n.Path == "" }) {
		t.Error("no mount namespace of its own")
	}
	if first := s.Linux.Resources.Devices[0]; first.Allow != sec.GetPrivileged() {
		t.Errorf("devices begin with %+v", first)
	}
	for _, m := range s.Mounts {
		if !path.IsAbs(m.Destination) || path.Clean(m.Destination) == "/" || strings.ContainsRune(m.Destination+m.Source, 0) {
			t.Errorf("mount of %q on %q", m.Source, m.Destination)
		}
	}
	if s.Root.Path != in.Rootfs || s.Linux.CgroupsPath != in.CgroupsPath || s.Hooks != nil || s.Hostname != "" || len(s.Linux.Sysctl) > 0 {
		t.Error("the configuration reaches what it must not")
	}
	for k, v := range s.Annotations {
		if in.Container.GetAnnotations()[k] != v || steers(k) {
			t.Errorf("annotation %q=%q", k, v)
		}
	}
}

func processHolds(t *testing.T, p *specs.Process) {
	if len(p.Args) == 0 || !path.IsAbs(p.Cwd) {
		t.Errorf("runs %q in %q", p.Args, p.Cwd)
	}
	names := make(map[string]bool)
	for _, entry := range p.Env {
		name, _, ok := strings.Cut(entry, "=")
		if !ok || name == "" || names[name] || strings.ContainsRune(entry, 0) {
			t.Errorf("variable %q", entry)
		}
		names[name] = true
	}
}
