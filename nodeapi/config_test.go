package nodeapi

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// made returns the configurations a specification became.
func (n *node) made(spec *nodev1.ContainerSpec) (*runtime.PodSandboxConfig, *runtime.ContainerConfig, sandbox.Pod) {
	n.t.Helper()
	c, err := n.sandboxes.Container(n.create("made", spec))
	if err != nil {
		n.t.Fatal(err)
	}
	pod, err := n.sandboxes.Pod(c.PodID)
	if err != nil {
		n.t.Fatal(err)
	}
	return pod.Config, c.Config, pod
}

// shortIDPattern is what a container is called on its network unless somebody said otherwise, as docker has it.
var shortIDPattern = regexp.MustCompile("^[0-9a-f]{12}$")

func TestConfigurationOfAPlainContainer(t *testing.T) {
	n := newNode(t)
	spec := box("sleep", "1")
	spec.Labels = map[string]string{"kind": "mine"}
	spec.Env = []string{"A=b", "A=c", "HOSTNAME=other"}
	pod, c, _ := n.made(spec)
	if pod.GetMetadata().GetName() != "made" || pod.GetMetadata().GetNamespace() != "nodectl" || !shortIDPattern.MatchString(pod.GetHostname()) {
		t.Errorf("pod %v", pod)
	}
	if c.GetLabels()["kind"] != "mine" || c.GetLabels()["from"] != "image" {
		t.Errorf("labels %v", c.GetLabels())
	}
	var env []string
	for _, e := range c.GetEnvs() {
		env = append(env, e.GetKey()+"="+string(e.GetValue()))
	}
	if !slices.Equal(env, []string{"A=c", "HOSTNAME=other"}) {
		t.Errorf("environment %q", env)
	}
	sec := c.GetLinux().GetSecurityContext()
	if sec.GetSeccomp().GetProfileType() != runtime.SecurityProfile_RuntimeDefault || len(sec.GetMaskedPaths()) == 0 ||
		sec.GetNamespaceOptions().GetPid() != runtime.NamespaceMode_CONTAINER {
		t.Errorf("security %v", sec)
	}
	if len(c.GetCommand()) != 0 || !slices.Equal(c.GetArgs(), []string{"sleep", "1"}) {
		t.Errorf("command %q %q", c.GetCommand(), c.GetArgs())
	}
	hosts, err := os.ReadFile(c.GetMounts()[0].GetHostPath())
	if err != nil || c.GetMounts()[0].GetContainerPath() != "/etc/hosts" || !strings.HasSuffix(string(hosts), "10.88.0.9\t"+pod.GetHostname()+"\n") {
		t.Errorf("hosts %q %v", hosts, err)
	}
}

func TestConfigurationOfARichContainer(t *testing.T) {
	n := newNode(t)
	source := filepath.Join(t.TempDir(), "made", "on", "demand")
	pod, c, info := n.made(&nodev1.ContainerSpec{
		Image: "box", SetEntrypoint: true, Entrypoint: []string{"/init"}, Command: []string{"x"},
		Tty: true, Stdin: true, User: "web:staff", Groups: []int64{7}, StopSignal: "rtmin+3", Hostname: "h",
		Resources: &nodev1.Resources{MemoryBytes: 64 << 20, NanoCpus: 1.5e9, CpuShares: 512, PidsLimit: 9},
		Security: &nodev1.Security{
			CapAdd: []string{"cap_net_admin", "ALL"}, ReadOnly: true, NoNewPrivileges: true, Seccomp: `{"defaultAction":"SCMP_ACT_ALLOW"}`,
			HostPid: true, Apparmor: "unconfined",
		},
		Network: &nodev1.Network{
			Dns: []string{"9.9.9.9"}, Hosts: []string{"db:10.0.0.1", "six:::1", "up:host-gateway"},
			Ports: []*nodev1.Port{{ContainerPort: 53, Protocol: "udp", HostIp: "127.0.0.1"}},
		},
		Mounts: []*nodev1.Mount{
			{Source: source, Target: "/a", CreateSource: true, ReadOnly: true, Propagation: "rslave"},
			{Type: nodev1.Mount_TMPFS, Target: "/b"},
			{Type: nodev1.Mount_IMAGE, Source: "web", Target: "/c", Subpath: "d"},
		},
		Devices: []*nodev1.Device{{HostPath: "/dev/null", ContainerPath: "/dev/n", Permissions: "r"}},
	})
	sec, res := c.GetLinux().GetSecurityContext(), c.GetLinux().GetResources()
	if sec.GetRunAsUsername() != "web:staff" || !slices.Equal(sec.GetCapabilities().GetAddCapabilities(), []string{"NET_ADMIN", "ALL"}) ||
		!sec.GetReadonlyRootfs() || !sec.GetNoNewPrivs() || sec.GetSupplementalGroups()[0] != 7 ||
		sec.GetNamespaceOptions().GetPid() != runtime.NamespaceMode_NODE ||
		sec.GetApparmor().GetProfileType() != runtime.SecurityProfile_Unconfined {
		t.Errorf("security %v", sec)
	}
	profile, err := os.ReadFile(sec.GetSeccomp().GetLocalhostRef())
	if err != nil || string(profile) != `{"defaultAction":"SCMP_ACT_ALLOW"}` {
		t.Errorf("seccomp %q %v", profile, err)
	}
	if res.GetCpuQuota() != 150000 || res.GetCpuPeriod() != 100000 || res.GetMemoryLimitInBytes() != 64<<20 || res.GetUnified()["pids.max"] != "9" {
		t.Errorf("resources %v", res)
	}
	if c.GetStopSignal() != runtime.Signal_SIGNAL_SIGRTMINPLUS3 || !slices.Equal(c.GetCommand(), []string{"/init"}) || c.GetDevices()[0].GetPermissions() != "r" {
		t.Errorf("container %v", c)
	}
	m := c.GetMounts()
	if _, err := os.Stat(source); err != nil || !m[0].GetReadonly() || m[0].GetPropagation() != runtime.MountPropagation_PROPAGATION_HOST_TO_CONTAINER {
		t.Errorf("bind %v %v", m[0], err)
	}
	if m[2].GetImage().GetImage() != "web" || m[2].GetImageSubPath() != "d" || !m[2].GetReadonly() {
		t.Errorf("image mount %v", m[2])
	}
	hosts, _ := os.ReadFile(m[3].GetHostPath())
	for _, line := range []string{"10.0.0.1\tdb\n", "::1\tsix\n", "10.88.0.1\tup\n", "10.88.0.9\th\n"} {
		if !strings.Contains(string(hosts), line) {
			t.Errorf("hosts %q lack %q", hosts, line)
		}
	}
	p := pod.GetPortMappings()[0]
	if p.GetHostPort() < firstChosenPort || p.GetProtocol() != runtime.Protocol_UDP || p.GetHostIp() != "127.0.0.1" {
		t.Errorf("port %v", p)
	}
	shown, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: "made"})
	if err != nil || shown.GetSpec().GetUser() != "web:staff" || shown.GetContainer().GetPorts()[0].GetHostPort() != uint32(p.GetHostPort()) ||
		shown.GetContainer().GetImage() != "box" || shown.GetPodId() != info.ID {
		t.Errorf("inspect %v %v", shown, err)
	}
}

func TestHostNetworkAndPrivileges(t *testing.T) {
	n := newNode(t)
	pod, c, _ := n.made(&nodev1.ContainerSpec{
		Image: "box", User: "7:8", Security: &nodev1.Security{Privileged: true},
		Network: &nodev1.Network{Mode: "host", Ports: []*nodev1.Port{{ContainerPort: 80, HostPort: 80}}},
	})
	sec := c.GetLinux().GetSecurityContext()
	if sec.GetRunAsUser().GetValue() != 7 || sec.GetRunAsGroup().GetValue() != 8 || !sec.GetPrivileged() || len(sec.GetMaskedPaths()) != 0 ||
		sec.GetSeccomp().GetProfileType() != runtime.SecurityProfile_Unconfined {
		t.Errorf("security %v", sec)
	}
	if len(pod.GetPortMappings()) != 0 || pod.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != runtime.NamespaceMode_NODE {
		t.Errorf("pod %v", pod)
	}
}

func TestPublishedPortsDoNotClash(t *testing.T) {
	n := newNode(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	busy := uint32(listener.Addr().(*net.TCPAddr).Port)
	publish := func(name string, ports ...*nodev1.Port) error {
		_, err := n.containers.Create(n.ctx, &nodev1.CreateRequest{Name: name, Spec: &nodev1.ContainerSpec{
			Image: "box", Network: &nodev1.Network{Ports: ports},
		}})
		return err
	}
	wantError(t, publish("a", &nodev1.Port{ContainerPort: 80, HostPort: busy, HostIp: "127.0.0.1"}), codes.AlreadyExists, "port is already allocated")
	free := uint32(48123)
	if err := publish("b", &nodev1.Port{ContainerPort: 80, HostPort: free, HostIp: "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	wantError(t, publish("c", &nodev1.Port{ContainerPort: 81, HostPort: free}), codes.AlreadyExists, "Bind for 0.0.0.0:48123 failed: port is already allocated")
	if err := publish("d", &nodev1.Port{ContainerPort: 80, HostPort: free, HostIp: "127.0.0.2"}); err != nil {
		t.Error(err)
	}
	resp, err := n.containers.Create(n.ctx, &nodev1.CreateRequest{Name: "all", Spec: &nodev1.ContainerSpec{
		Image: "web", Command: []string{"x"}, Network: &nodev1.Network{PublishAll: true, Expose: []string{"81"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	info, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: resp.GetId()})
	if err != nil || len(info.GetContainer().GetPorts()) != 2 || info.GetContainer().GetPorts()[0].GetHostPort() == info.GetContainer().GetPorts()[1].GetHostPort() {
		t.Errorf("got %v %v", info.GetContainer().GetPorts(), err)
	}
}

func TestRefusals(t *testing.T) {
	n := newNode(t)
	missing := filepath.Join(t.TempDir(), "missing")
	tests := []struct {
		name string
		spec *nodev1.ContainerSpec
		code codes.Code
		want string
	}{
		{"no image", &nodev1.ContainerSpec{}, codes.InvalidArgument, "no image specified"},
		{"missing image", &nodev1.ContainerSpec{Image: "nothing"}, codes.NotFound, "No such image: nothing:latest"},
		{"other platform", &nodev1.ContainerSpec{Image: "box", Platform: "linux/s390x"}, codes.NotFound, "No such image: box:latest"},
		{"no command", &nodev1.ContainerSpec{Image: "web"}, codes.InvalidArgument, "no command specified"},
		{"network", &nodev1.ContainerSpec{Image: "box", Network: &nodev1.Network{Mode: "nope"}}, codes.NotFound, "network nope not found"},
		{"workdir", &nodev1.ContainerSpec{Image: "box", WorkingDir: "rel"}, codes.InvalidArgument, "needs to be an absolute path"},
		{"memory", &nodev1.ContainerSpec{Image: "box", Resources: &nodev1.Resources{MemoryBytes: 1}}, codes.InvalidArgument, "Minimum memory limit"},
		{"signal", &nodev1.ContainerSpec{Image: "box", StopSignal: "SIGODD"}, codes.InvalidArgument, "invalid signal: SIGODD"},
		{"target", &nodev1.ContainerSpec{Image: "box", Mounts: []*nodev1.Mount{{Source: "/", Target: "/."}}}, codes.InvalidArgument, "destination can't be '/'"},
		{"twice", &nodev1.ContainerSpec{Image: "box", Mounts: []*nodev1.Mount{{Source: "/", Target: "/x"}, {Source: "/", Target: "/x/"}}}, codes.InvalidArgument, "Duplicate mount point: /x"},
		{"bind source", &nodev1.ContainerSpec{Image: "box", Mounts: []*nodev1.Mount{{Source: missing, Target: "/x"}}}, codes.InvalidArgument, "bind source path does not exist: " + missing},
		{"host", &nodev1.ContainerSpec{Image: "box", Network: &nodev1.Network{Hosts: []string{"a\nb:1.1.1.1"}}}, codes.InvalidArgument, "bad format for add-host"},
		{"seccomp", &nodev1.ContainerSpec{Image: "box", Security: &nodev1.Security{Seccomp: "{"}}, codes.InvalidArgument, "Decoding seccomp profile failed"},
		{"proto", &nodev1.ContainerSpec{Image: "box", Network: &nodev1.Network{Ports: []*nodev1.Port{{ContainerPort: 1, Protocol: "x"}}}}, codes.InvalidArgument, "invalid proto: x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := n.containers.Create(n.ctx, &nodev1.CreateRequest{Spec: test.spec})
			wantError(t, err, test.code, test.want)
		})
	}
	n.noFiles()
}

func TestSignals(t *testing.T) {
	for in, want := range map[string]string{
		"9": "SIGKILL", "hup": "SIGHUP", "SIGTERM": "SIGTERM", "34": "SIGRTMIN", "RTMIN+3": "SIGRTMIN+3", "63": "SIGRTMAX-1", "SIGRTMAX": "SIGRTMAX",
	} {
		if got, err := normalSignal(in); got != want || err != nil {
			t.Errorf("%s: got %s %v", in, got, err)
		}
		if _, err := stopSignal(in); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
	for _, in := range []string{"", "0", "65", "RTMIN+99", "RTMAX+1", "-1", "SIG"} {
		if got, err := normalSignal(in); err == nil {
			t.Errorf("%q became %s", in, got)
		}
	}
}

func TestTmpfsIsFreshAtEachStart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	f := files{root: t.TempDir(), state: t.TempDir()}
	mounts := []*nodev1.Mount{{}, {Type: nodev1.Mount_TMPFS, TmpfsSize: 1 << 20, TmpfsMode: 0o700, Options: []string{"exec"}}}
	if err := f.make("k"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.remove("k") }()
	target := f.tmpfs("k", 1)
	for range 2 {
		if err := f.mountTmpfs("k", mounts); err != nil {
			t.Fatal(err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(target, &st); err != nil || st.Type != unix.TMPFS_MAGIC || st.Blocks*uint64(st.Bsize) != 1<<20 ||
			st.Flags&unix.ST_NOSUID == 0 || st.Flags&unix.ST_NOEXEC != 0 {
			t.Fatalf("got %+v %v", st, err)
		}
		entries, err := os.ReadDir(target)
		if err != nil || len(entries) != 0 {
			t.Fatalf("not fresh: %v %v", entries, err)
		}
		if err := os.WriteFile(filepath.Join(target, "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.prepare(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(target); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", target, err)
	}
}

func TestUserOrGroupAlone(t *testing.T) {
	for user, want := range map[string]string{
		"": "", "web": "web", "1:2": "1:2", ":5": "0:5", ":staff": "0:staff", "web:": "web", ":": "0",
	} {
		if got := wholeUser(user); got != want {
			t.Errorf("%q is read as %q, want %q", user, got, want)
		}
	}
}
