package cve

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// CVE-2022-29162, CVE-2022-27652, CVE-2022-24769, CVE-2025-27612: inheritable capabilities, as the kernel tells them.
func TestCVE202229162InheritableCapabilities(t *testing.T) {
	n := newNode(t)
	config := n.podConfig()
	config.Linux.SecurityContext.Privileged = true
	pod := n.RunPod(config)
	for _, privileged := range []bool{false, true} {
		ctr := pods.Shell(fmt.Sprintf("privileged-%v", privileged), "grep -E 'Cap(Inh|Amb)' /proc/self/status; exec sleep 1000")
		ctr.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{Privileged: privileged}
		id := n.Started(pod, config, ctr)
		const none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n"
		if got := n.Exec(id, "grep", "-E", "Cap(Inh|Amb)", "/proc/self/status"); got != none {
			t.Errorf("privileged %v, exec: %q", privileged, got)
		}
		testenv.Eventually(t, eventLimit, "the container tells its capabilities", func() error {
			if got := n.logText(config.LogDirectory + "/" + ctr.LogPath); got != none {
				return fmt.Errorf("they are %q", got)
			}
			return nil
		})
	}
}

// CVE-2024-21626: descriptors of the host in a container, to be found by the working folder. A link in the image may
// lead to them just as well.
func TestCVE202421626Descriptors(t *testing.T) {
	n := newNode(t)
	id, logs := n.running(pods.Shell("run", "ls /proc/$$/fd; exec sleep 1000"))
	const standard = "0\n1\n2\n"
	if got := n.Exec(id, "sh", "-c", "ls /proc/$$/fd; true"); got != standard {
		t.Errorf("exec has the descriptors %q", got)
	}
	testenv.Eventually(t, eventLimit, "the container tells its descriptors", func() error {
		if got := n.logText(logs + "/run.log"); got != standard {
			return fmt.Errorf("they are %q", got)
		}
		return nil
	})
	config := n.podConfig()
	pod := n.RunPod(config)
	var headers []*tar.Header
	for fd := 3; fd < 15; fd++ {
		headers = append(headers, link(fmt.Sprintf("fd%d", fd), fmt.Sprintf("/proc/self/fd/%d", fd)))
	}
	ref := shared.registry.image(t, "descriptors", headers...)
	n.Pull(ref)
	control := pods.Shell("control", "true")
	control.Image.Image = ref
	n.Started(pod, config, control)
	for _, header := range headers {
		ctr := pods.Shell(header.Name, "true")
		ctr.Image.Image, ctr.WorkingDir = ref, "/"+header.Name
		if _, err := n.StartError(pod, config, ctr); err == nil {
			t.Errorf("%s is a working folder", header.Linkname)
		}
	}
}

// A container that debugs its pod has CAP_SYS_PTRACE, and sees the first process of the PID namespace that the pod
// shares: as with a link of CVE-2024-21626, /proc/1/root must not lead to the host, nor its namespaces.
func TestPodInitIsNoWayOut(t *testing.T) {
	n := newNode(t)
	for name, config := range map[string]*runtimeapi.PodSandboxConfig{"plain": n.podConfig(), "mapped": mapped(n.podConfig())} {
		config.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		ctr := idle(name)
		ctr.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: config.Linux.SecurityContext.NamespaceOptions,
			Capabilities:     &runtimeapi.Capability{AddCapabilities: []string{"SYS_PTRACE"}},
		}
		id := n.Started(n.RunPod(config), config, ctr)
		if got := n.Exec(id, "sh", "-c", "cat /proc/1/comm; ls -A /proc/1/root/ /proc/1/cwd/.. 2>/dev/null | grep -v :; true"); strings.TrimSpace(got) != "pod-init" {
			t.Errorf("%s: a container sees %q", name, got)
		}
		for _, kind := range []string{"net", "ipc", "uts"} {
			script := fmt.Sprintf("readlink /proc/1/ns/%s || readlink /proc/self/ns/%s; readlink /proc/self/ns/%s", kind, kind, kind)
			if got := strings.Fields(n.Exec(id, "sh", "-c", script)); len(got) != 2 || got[0] != got[1] {
				t.Errorf("%s: the first process is in %q", name, got)
			}
		}
	}
}

// CVE-2019-5736: a container that overwrites the program that starts its processes.
func TestCVE20195736ProgramsStay(t *testing.T) {
	n := newNode(t)
	programs := []string{testenv.Binary(t, "nodeagent"), testenv.Binary(t, "nodesupervisor")}
	before := sums(t, programs)
	id, logs := n.running(probing(t, pods.Shell("overwrite", ""), "overwrite"))
	for range 15 {
		// The program that a process of ours executes last before it is the container's.
		_, _ = n.ExecSync(id, 1, "/proc/self/exe")
		_, _ = n.ExecSync(id, 10, "true")
	}
	if after := sums(t, programs); after != before {
		t.Errorf("changed: %s, before %s", after, before)
	}
	n.goesOnRunning(id)
	for line := range strings.Lines(n.logText(logs + "/overwrite.log")) {
		if strings.Contains(line, "node") {
			t.Error(line)
		}
	}
}

func sums(t *testing.T, programs []string) (all string) {
	t.Helper()
	for _, path := range programs {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all += fmt.Sprintf("%x ", sha256.Sum256(content))
	}
	return all
}

// CVE-2023-25809: cgroups that a container can write to, or sees of others.
func TestCVE202325809Cgroups(t *testing.T) {
	n := newNode(t)
	// Where hierarchies are apart, what holds them is a file system of the container's own.
	const look = `find /sys/fs/cgroup -mindepth $(grep -c '^cgroup2 /sys/fs/cgroup ' /proc/mounts | tr 01 10) -type d | while read -r d; do mkdir "$d/made" && echo "$d"; done 2>/dev/null; find /sys/fs/cgroup -name 'nodeagent*' -o -name 'system.slice'`
	control := n.podConfig()
	control.Linux.SecurityContext.Privileged = true
	for name, config := range map[string]*runtimeapi.PodSandboxConfig{"plain": n.podConfig(), "mapped": mapped(n.podConfig()), "privileged": control} {
		ctr := idle(name)
		ctr.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{Privileged: name == "privileged"}
		answer, err := n.ExecSync(n.Started(n.RunPod(config), config, ctr), 10, "sh", "-c", look)
		n.Must("exec", err)
		if writes := len(answer.Stdout) != 0; writes != (name == "privileged") {
			t.Errorf("%s: %s", name, answer.Stdout)
		}
	}
}

// CVE-2025-47291: limits of a pod with a user namespace that hold for nobody.
func TestCVE202547291LimitsWithUserNamespace(t *testing.T) {
	n := newNode(t)
	config := mapped(n.podConfig())
	ctr := pods.Shell("limited", "dd if=/dev/zero of=/dev/null bs=64M")
	ctr.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 32 << 20}
	pod := n.RunPod(config)
	if state := n.Ended(n.Started(pod, config, ctr)); state.Reason != "OOMKilled" {
		t.Errorf("%s, exit code %d", state.Reason, state.ExitCode)
	}
	id := n.Started(pod, config, idle("placed"))
	pid := n.pid(id)
	if groups := process(t, pid, "cgroup"); !strings.Contains(groups, n.CgroupParent+"/pods/"+pod+"/"+id) {
		t.Errorf("it is in %s", groups)
	}
	if uids := process(t, pid, "uid_map"); !strings.Contains(uids, fmt.Sprint(userID)) {
		t.Errorf("it has the users %s", uids)
	}
}

// CVE-2022-0811, CVE-2022-0532: sysctls that bring others along, or are the host's.
func TestCVE20220811Sysctls(t *testing.T) {
	n := newNode(t)
	before := hostSysctls(t)
	for _, test := range []struct {
		name, value string
		host        bool
	}{
		{"kernel.shm_rmid_forced", "1+kernel.core_pattern=|/bin/false", false}, {"kernel.shm_rmid_forced", "1\nkernel.core_pattern=x", false},
		{"kernel.core_pattern", "|/bin/false", false}, {"net/../kernel/core_pattern", "|/bin/false", false},
		{"kernel/shm/../core_pattern", "|/bin/false", false}, {"kernel.shm_rmid_forced", "1", true}, {"net.core.somaxconn", "7", true},
	} {
		config := n.podConfig()
		config.Linux.Sysctls = map[string]string{test.name: test.value}
		if test.host {
			o := config.Linux.SecurityContext.NamespaceOptions
			o.Network, o.Ipc = runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE
		}
		if _, err := n.RunPodError(config); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s=%q, host %v: %v", test.name, test.value, test.host, err)
		}
	}
	if after := hostSysctls(t); after != before {
		t.Errorf("the host has %q, had %q", after, before)
	}
}

func hostSysctls(t *testing.T) (all string) {
	t.Helper()
	for _, name := range []string{"kernel/core_pattern", "kernel/shm_rmid_forced", "net/core/somaxconn"} {
		text, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	return all
}

// The default profile forbids what has been used to get out of containers again and again, whatever is said upstream.
func TestDefaultSeccompProfile(t *testing.T) {
	n := newNode(t)
	ctr := probing(t, pods.Shell("seccomp", ""), "seccomp")
	ctr.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{Seccomp: &runtimeapi.SecurityProfile{}}
	id, logs := n.running(ctr)
	if code := n.Ended(id).ExitCode; code != 0 {
		t.Errorf("exit code %d", code)
	}
	if through := n.logText(logs + "/seccomp.log"); through != "" {
		t.Errorf("not forbidden: %s", through)
	}
}

// pid is a container's first process.
func (n *node) pid(id string) (pid int) {
	n.t.Helper()
	ctx, cancel := n.Context()
	defer cancel()
	answer, err := n.Runtime().ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	n.Must("container status", err)
	_, after, _ := strings.Cut(answer.Info["info"], `"pid":`)
	_, err = fmt.Sscan(after, &pid)
	n.Must("find the container's process", err)
	return pid
}
