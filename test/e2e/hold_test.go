package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// noFolders is a seccomp profile that forbids to make folders.
const noFolders = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}`

// What a container's configuration asks for holds, as far as the conformance suite does not look.
func TestFieldsHold(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	dir := t.TempDir()
	profile := filepath.Join(dir, "profile.json")
	if err := os.WriteFile(profile, []byte(noFolders), 0o644); err != nil {
		t.Fatal(err)
	}
	config := n.podConfig("fields")
	config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
	}
	pod := n.RunPod(config)
	ctr := pods.Shell("main", "trap 'exit 42' USR1; while :; do sleep 1000 & wait; done")
	ctr.StopSignal, ctr.WorkingDir = runtimeapi.Signal_SIGNAL_SIGUSR1, "/tmp"
	ctr.Envs = []*runtimeapi.KeyValue{{Key: "ODD", Value: []byte("a\nb=\xff")}}
	ctr.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: "/dev/nothing", Permissions: "r"}}
	ctr.Linux = &runtimeapi.LinuxContainerConfig{
		SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: config.Linux.SecurityContext.NamespaceOptions,
			RunAsUser:        &runtimeapi.Int64Value{Value: 1000}, RunAsGroup: &runtimeapi.Int64Value{Value: 1001}, SupplementalGroups: []int64{7},
			Capabilities:   &runtimeapi.Capability{AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}, DropCapabilities: []string{"CHOWN"}},
			NoNewPrivs:     true,
			ReadonlyRootfs: true,
			MaskedPaths:    []string{"/proc/keys"}, ReadonlyPaths: []string{"/proc/sys"},
			Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: profile},
		},
		Resources: &runtimeapi.LinuxContainerResources{OomScoreAdj: 300, CpusetCpus: "0"},
	}
	id := n.Started(pod, config, ctr)
	for command, want := range map[string]string{
		"id": "uid=1000 gid=1001 groups=7,1001",
		"grep -E 'CapAmb|NoNewPrivs|Seccomp:|Cpus_allowed_list' /proc/1/status | tr -s '\\t\\n' ' '": "CapAmb: 0000000000000400 NoNewPrivs: 1 Seccomp: 2 Cpus_allowed_list: 0 ",
		"cat /proc/1/oom_score_adj":                     "300",
		"tr '\\0' '|' </proc/1/environ | grep -c '^b='": "1",
		"readlink /proc/1/cwd":                          "/tmp",
		"mkdir /dev/shm/x 2>&1":                         "mkdir: can't create directory '/dev/shm/x': Operation not permitted",
		"wc -c </dev/nothing":                           "0",
		"touch /x 2>&1":                                 "touch: /x: Read-only file system",
		"wc -c </proc/keys":                             "0",
		"(echo 1 >/proc/sys/kernel/shm_rmid_forced) 2>&1 | grep -c .": "1",
	} {
		if got := n.try(id, command); got != strings.TrimSpace(want) {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	n.targets(pod, config, id)
	n.StopContainer(id, 10)
	if s := n.Status(id); s.ExitCode != 42 || s.StopSignal != runtimeapi.Signal_SIGNAL_SIGUSR1 {
		t.Errorf("exit code %d after %s", s.ExitCode, s.StopSignal)
	}
	n.RemovePod(pod)
}

// try runs a command, which may fail, and gives its output.
func (n *node) try(id, command string) string {
	n.t.Helper()
	ctx, cancel := n.Context()
	defer cancel()
	out, err := n.Runtime().ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", command}, Timeout: 10})
	n.Must(command, err)
	return strings.TrimSpace(string(out.Stdout))
}

// targets checks containers that share another's PID namespace, as those for debugging do.
func (n *node) targets(pod string, config *runtimeapi.PodSandboxConfig, id string) {
	n.t.Helper()
	debug := func(name, target string) *runtimeapi.ContainerConfig {
		ctr := pods.Shell(name, "exec sleep 1000")
		ctr.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: target},
		}}
		return ctr
	}
	seeing := debug("sees", id)
	seeing.Devices = []*runtimeapi.Device{{HostPath: "/dev/kmsg", Permissions: "r"}}
	sees := n.Started(pod, config, seeing)
	if got := n.try(sees, "(echo x >/dev/kmsg) 2>&1 | grep -o 'not permitted'; head -c 1 /dev/kmsg | wc -c"); got != "not permitted\n1" && got != "not permitted\n0" {
		n.t.Errorf("a device that may be read only: %q", got)
	}
	if got := n.try(sees, "tr '\\0' ' ' </proc/1/cmdline | cut -c-20"); got != "sh -c trap 'exit 42'" {
		n.t.Errorf("its first process is %q", got)
	}
	created := n.Create(pod, config, pods.Shell("created", "true"))
	other := n.podConfig("other")
	otherPod := n.RunPod(other)
	stranger := n.Started(otherPod, other, pods.Shell("stranger", "exec sleep 1000"))
	for name, want := range map[string]struct {
		target string
		code   codes.Code
	}{
		"none": {"", codes.InvalidArgument}, "unknown": {"ffff", codes.NotFound}, "created": {created, codes.FailedPrecondition}, "stranger": {stranger, codes.InvalidArgument},
	} {
		if _, err := n.CreateError(pod, config, debug("to-"+name, want.target)); status.Code(err) != want.code {
			n.t.Errorf("target %s: %v", name, err)
		}
	}
	n.RemovePod(otherPod)
}

// Pods get the namespaces they ask for and share the host's, in a user namespace too.
func TestNamespaceModes(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	ids := []*runtimeapi.IDMapping{{HostId: 200000, Length: 65536}}
	for i := range 24 {
		o := &runtimeapi.NamespaceOption{
			Network: []runtimeapi.NamespaceMode{runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_NODE}[i%2],
			Ipc:     []runtimeapi.NamespaceMode{runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_NODE}[i/2%2],
			Pid:     []runtimeapi.NamespaceMode{runtimeapi.NamespaceMode_POD, runtimeapi.NamespaceMode_CONTAINER, runtimeapi.NamespaceMode_NODE}[i/4%3],
		}
		if i >= 12 {
			o.UsernsOptions = &runtimeapi.UserNamespace{Uids: ids, Gids: ids}
		}
		config := n.podConfig(fmt.Sprintf("modes-%d", i))
		config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: o}
		pod := n.RunPod(config)
		ctr := pods.Shell("main", "exec sleep 1000")
		ctr.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: o}}
		id, err := n.CreateError(pod, config, ctr)
		if err == nil {
			ctx, cancel := n.Context()
			_, err = n.Runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
			cancel()
		}
		if err != nil {
			t.Errorf("%v: %v", o, err)
			n.RemovePod(pod)
			continue
		}
		for kind, host := range map[string]bool{
			"net": o.Network == runtimeapi.NamespaceMode_NODE, "uts": o.Network == runtimeapi.NamespaceMode_NODE,
			"ipc": o.Ipc == runtimeapi.NamespaceMode_NODE, "pid": o.Pid == runtimeapi.NamespaceMode_NODE, "user": o.UsernsOptions == nil,
		} {
			ours, err := os.Readlink("/proc/self/ns/" + kind)
			n.Must("read namespace", err)
			if theirs := n.try(id, "readlink /proc/self/ns/"+kind); (theirs == ours) != host || !strings.HasPrefix(theirs, kind) {
				t.Errorf("%v: %s is %s, the host's %s", o, kind, theirs, ours)
			}
		}
		n.RemovePod(pod)
	}
}
