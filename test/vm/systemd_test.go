package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

// kubelet's slices: those above the pod's, which it names by its folder.
const (
	podSlice    = "kubepods-burstable-pod11112222_3333_4444.slice"
	podSliceDir = "/kubepods.slice/kubepods-burstable.slice/" + podSlice
)

// systemdNode is an agent that has systemd make its cgroups, and a pod in a slice that is made as kubelet's are.
type systemdNode struct {
	*testing.T
	agent  *testenv.AgentProcess
	slices *cgroups.Manager // asked for folders
	pod    string
	config *runtimeapi.PodSandboxConfig
}

// TestSystemd is what the machine with systemd runs.
func TestSystemd(t *testing.T) {
	if os.Getenv("NODEAGENT_TEST_MACHINE") == "" {
		t.Skip("runs in the machine")
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("the machine's first process is not systemd")
	}
	// It looks at cgroups alone: what makes and removes them is the agent, or systemctl.
	m, err := cgroups.New(cgroups.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	systemctl(t, "start", "dbus.service", "kubepods-burstable.slice")
	testenv.Leaks(t)
	n := &systemdNode{T: t, slices: m, agent: testenv.Agent(t, testenv.AgentOptions{SystemdCgroup: true})}
	if out := importBusybox(t, n.agent); out.Code != 0 {
		t.Fatalf("nodectl import: %s", out.Stderr)
	}
	for _, test := range []struct {
		name string
		run  func(*systemdNode)
	}{
		{"driver", (*systemdNode).driver}, {"pod", (*systemdNode).kubeletPod}, {"owned", (*systemdNode).owned}, {"oom", (*systemdNode).oom},
		{"service", (*systemdNode).service}, {"parents", (*systemdNode).parents},
	} {
		t.Run(test.name, func(t *testing.T) {
			one := *n
			one.T = t
			test.run(&one)
		})
	}
	for _, script := range []string{"limits", "ends"} {
		t.Run(script, func(t *testing.T) { runScript(t, n.agent, script) })
	}
	t.Run("nothing left", func(t *testing.T) {
		units := systemctl(t, "list-units", "--all", "--plain", "--no-legend", "--type=scope,slice")
		for line := range strings.Lines(units) {
			unit := strings.Fields(line)[0]
			ours := []string{"-.slice", "system.slice", "init.scope", "kubepods.slice", "kubepods-burstable.slice"}
			base := strings.TrimPrefix(strings.TrimSuffix(n.agent.CgroupParent, ".slice"), "/")
			if !slices.Contains(ours, unit) && unit != base+".slice" && unit != base+"-pods.slice" && !strings.HasPrefix(unit, "nodeagent-supervisor-") {
				t.Errorf("left: %s", line)
			}
		}
	})
}

func (n *systemdNode) must(what string, err error) {
	n.Helper()
	if err != nil {
		n.Fatalf("%s: %v", what, err)
	}
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out := testenv.Run(t, "systemctl", args...)
	if out.Code != 0 {
		t.Fatalf("systemctl %s: %s%s", strings.Join(args, " "), out.Stdout, out.Stderr)
	}
	return strings.TrimSpace(out.Stdout)
}

// wantUnit compares what systemd says of a unit: lines of NAME=VALUE.
func (n *systemdNode) wantUnit(unit string, want ...string) {
	n.Helper()
	var names []string
	for _, line := range want {
		name, _, _ := strings.Cut(line, "=")
		names = append(names, name)
	}
	shown := strings.Split(systemctl(n.T, "show", "--property", strings.Join(names, ","), unit), "\n")
	for _, line := range want {
		if !slices.Contains(shown, line) {
			n.Errorf("%s: %v lacks %s", unit, shown, line)
		}
	}
}

// wantFile compares a file of a cgroup.
func (n *systemdNode) wantFile(dir, name, want string) {
	n.Helper()
	got, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", dir, name))
	if err != nil || strings.TrimSpace(string(got)) != want {
		n.Errorf("%s of %s is %q, %v; want %s", name, dir, got, err, want)
	}
}

// cgroupOf is a process's.
func (n *systemdNode) cgroupOf(pid string) string {
	n.Helper()
	data, err := os.ReadFile("/proc/" + pid + "/cgroup")
	n.must("read a process's cgroup", err)
	return strings.TrimPrefix(strings.TrimSpace(string(data)), "0::")
}

func (n *systemdNode) driver() {
	config, err := n.agent.Runtime().RuntimeConfig(n.Context(), &runtimeapi.RuntimeConfigRequest{})
	n.must("runtime configuration", err)
	if got := config.GetLinux().GetCgroupDriver(); got != runtimeapi.CgroupDriver_SYSTEMD {
		n.Errorf("the driver is %v", got)
	}
	out := n.agent.Nodectl("info")
	if !strings.Contains(out.Stdout, "Cgroup Driver: systemd") || !strings.Contains(out.Stdout, "Cgroup Version: 2") {
		n.Errorf("nodectl info: %s%s", out.Stdout, out.Stderr)
	}
	for _, parent := range []string{"/kubepods/pod1", "kubepods--a.slice", "/kubepods-a.slice"} {
		_, err := n.agent.Runtime().RunPodSandbox(n.Context(), &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("odd", parent)})
		if err == nil || !strings.Contains(err.Error(), "linux.cgroup_parent") {
			n.Errorf("%s as a parent: %v", parent, err)
		}
	}
}

func (n *systemdNode) podConfig(name, parent string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name},
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: parent, SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_POD},
		}},
	}
}

// runPod makes the pod's slice as kubelet does, and the pod.
func (n *systemdNode) runPod() {
	n.Helper()
	systemctl(n.T, "start", podSlice)
	systemctl(n.T, "set-property", "--runtime", podSlice, "TasksMax=500")
	n.config = n.podConfig("web", podSliceDir)
	pod, err := n.agent.Runtime().RunPodSandbox(n.Context(), &runtimeapi.RunPodSandboxRequest{Config: n.config})
	n.must("run a pod", err)
	n.pod = pod.PodSandboxId
}

func (n *systemdNode) start(name string, memory int64, command ...string) string {
	n.Helper()
	created, err := n.agent.Runtime().CreateContainer(n.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: n.pod, SandboxConfig: n.config, Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: "busybox"}, Command: command,
			Linux: &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{
				MemoryLimitInBytes: memory, MemorySwapLimitInBytes: memory, CpuQuota: 50000, CpuPeriod: 100000, CpuShares: 512, CpusetCpus: "0",
			}},
		},
	})
	n.must("create a container", err)
	_, err = n.agent.Runtime().StartContainer(n.Context(), &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId})
	n.must("start a container", err)
	return created.ContainerId
}

func (n *systemdNode) status(id string) *runtimeapi.ContainerStatus {
	n.Helper()
	status, err := n.agent.Runtime().ContainerStatus(n.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
	n.must("container status", err)
	return status.Status
}

func (n *systemdNode) exec(id string, command ...string) string {
	n.Helper()
	out, err := n.agent.Runtime().ExecSync(n.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: 20})
	n.must("exec", err)
	if out.ExitCode != 0 {
		n.Errorf("exec %v: exit code %d: %s%s", command, out.ExitCode, out.Stdout, out.Stderr)
	}
	return strings.TrimSpace(string(out.Stdout))
}

// removePod takes the pod down, as kubelet does, and its slice.
func (n *systemdNode) removePod() {
	n.Helper()
	_, err := n.agent.Runtime().StopPodSandbox(n.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: n.pod})
	n.must("stop the pod", err)
	_, err = n.agent.Runtime().RemovePodSandbox(n.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: n.pod})
	n.must("remove the pod", err)
	testenv.Eventually(n, patience, "the slice is empty", func() error {
		if left := n.slices.Children(podSliceDir); len(left) > 0 {
			return fmt.Errorf("left in the slice: %v", left)
		}
		return nil
	})
	systemctl(n.T, "stop", podSlice)
	systemctl(n.T, "revert", podSlice)
}

// kubeletPod is the life of a pod in a slice of kubelet's, with an agent that dies meanwhile.
func (n *systemdNode) kubeletPod() {
	n.runPod()
	id := n.start("c", 64<<20, "sleep", "1000")
	scope, dir := "nodeagent-"+id+".scope", podSliceDir+"/nodeagent-"+id+".scope"
	n.wantUnit(scope, "ActiveState=active", "ControlGroup="+dir, "Slice="+podSlice, "Delegate=yes",
		fmt.Sprintf("MemoryMax=%d", 64<<20), "CPUQuotaPerSecUSec=500ms", "AllowedCPUs=0")
	n.wantFile(dir, "memory.max", fmt.Sprint(64<<20))
	n.wantFile(dir, "cpu.max", "50000 100000")
	n.wantFile(podSliceDir, "pids.max", "500")
	pids, err := n.slices.Procs(dir)
	if err != nil || len(pids) != 1 || n.cgroupOf(fmt.Sprint(pids[0])) != dir {
		n.Fatalf("processes of the scope: %v, %v", pids, err)
	}
	if got := n.exec(id, "sh", "-c", "cat /proc/self/cgroup"); got != "0::/" {
		n.Errorf("an exec is in %s", got)
	}
	if in := n.slices.Children(podSliceDir); !slices.Equal(in, []string{scope, "nodeagent-init-" + n.pod[:16] + ".scope"}) {
		n.Errorf("in the pod's slice: %v", in)
	}
	n.stats(id)
	n.update(id, scope, dir)
	n.restarted(id, dir, pids[0])
	n.removePod()
}

func (n *systemdNode) stats(id string) {
	n.Helper()
	container, err := n.agent.Runtime().ContainerStats(n.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: id})
	n.must("container statistics", err)
	pod, err := n.agent.Runtime().PodSandboxStats(n.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: n.pod})
	n.must("pod statistics", err)
	if container.Stats.GetMemory().GetUsageBytes().GetValue() == 0 || container.Stats.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 {
		n.Errorf("container statistics %v", container.Stats)
	}
	// The pod's init is a process too.
	if pod.Stats.GetLinux().GetMemory().GetUsageBytes().GetValue() == 0 || pod.Stats.GetLinux().GetProcess().GetProcessCount().GetValue() < 2 {
		n.Errorf("pod statistics %v", pod.Stats)
	}
}

// update changes limits, of which systemd has to know: otherwise it sets them back.
func (n *systemdNode) update(id, scope, dir string) {
	n.Helper()
	_, err := n.agent.Runtime().UpdateContainerResources(n.Context(), &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 << 20, MemorySwapLimitInBytes: 96 << 20, CpuQuota: 150000, CpuPeriod: 100000},
	})
	n.must("update", err)
	for range 2 {
		n.wantUnit(scope, fmt.Sprintf("MemoryMax=%d", 96<<20), "CPUQuotaPerSecUSec=1.500000s", "AllowedCPUs=0")
		n.wantFile(dir, "memory.max", fmt.Sprint(96<<20))
		n.wantFile(dir, "cpu.max", "150000 100000")
		n.wantFile(podSliceDir, "pids.max", "500")
		systemctl(n.T, "daemon-reload")
		// systemd takes this one, and the kernel does not.
		_, err := n.agent.Runtime().UpdateContainerResources(n.Context(), &runtimeapi.UpdateContainerResourcesRequest{
			ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20, MemorySwapLimitInBytes: 128 << 20, CpusetCpus: "4000"},
		})
		if err == nil {
			n.Error("a processor that is not there was taken")
		}
	}
	if got := n.status(id).GetResources().GetLinux().GetMemoryLimitInBytes(); got != 96<<20 {
		n.Errorf("the status says %d bytes", got)
	}
}

// restarted kills the agent and starts it again: the container is where it was.
func (n *systemdNode) restarted(id, dir string, pid int) {
	n.Helper()
	n.agent.Kill9()
	systemctl(n.T, "daemon-reload")
	n.agent.Start()
	if got := n.status(id); got.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		n.Errorf("after the agent's death: %v", got)
	}
	if pids, err := n.slices.Procs(dir); err != nil || !slices.Equal(pids, []int{pid}) {
		n.Errorf("processes of the scope: %v, %v; want %d", pids, err, pid)
	}
	// Devices are allowed by systemd too.
	if got := n.exec(id, "sh", "-c", "echo x >/dev/null && head -c 3 /dev/zero | wc -c"); got != "3" {
		n.Errorf("exec said %q", got)
	}
	n.stats(id)
	// The same with the supervisor, which the agent starts anew.
	for _, unit := range n.slices.Children(n.agent.CgroupParent) {
		if pids, err := n.slices.Procs(n.agent.CgroupParent + "/" + unit); err == nil && len(pids) == 1 && strings.Contains(unit, "supervisor") {
			n.must("kill the supervisor", syscall.Kill(pids[0], syscall.SIGKILL))
		}
	}
	testenv.Eventually(n, patience, "an exec with another supervisor", func() error {
		_, err := n.agent.Runtime().ExecSync(n.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}, Timeout: 20})
		return err
	})
	if pids, err := n.slices.Procs(dir); err != nil || !slices.Equal(pids, []int{pid}) {
		n.Errorf("processes of the scope: %v, %v; want %d", pids, err, pid)
	}
}

// owned is a pod that names no parent: its slice is the agent's, with the pod's limits.
func (n *systemdNode) owned() {
	n.config = n.podConfig("owned", "")
	n.config.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}
	pod, err := n.agent.Runtime().RunPodSandbox(n.Context(), &runtimeapi.RunPodSandboxRequest{Config: n.config})
	n.must("run a pod", err)
	n.pod = pod.PodSandboxId
	pods := cgroups.SliceBelow(n.agent.CgroupParent, "pods")
	slice := cgroups.SliceBelow(pods, n.pod)
	n.wantUnit(filepath.Base(slice), "ControlGroup="+slice, fmt.Sprintf("MemoryMax=%d", 64<<20))
	_, err = n.agent.Runtime().UpdatePodSandboxResources(n.Context(), &runtimeapi.UpdatePodSandboxResourcesRequest{
		PodSandboxId: n.pod, Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 << 20},
	})
	n.must("update the pod", err)
	id := n.start("c", 32<<20, "sleep", "1000")
	systemctl(n.T, "daemon-reload")
	n.wantUnit(filepath.Base(slice), fmt.Sprintf("MemoryMax=%d", 96<<20))
	n.wantFile(slice, "memory.max", fmt.Sprint(96<<20))
	// The bus is restarted by upgrades; the connections of agent and supervisor are gone then.
	systemctl(n.T, "restart", "dbus.service")
	_, err = n.agent.Runtime().UpdateContainerResources(n.Context(), &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 48 << 20, MemorySwapLimitInBytes: 48 << 20},
	})
	n.must("update with another bus", err)
	n.wantFile(slice+"/nodeagent-"+id+".scope", "memory.max", fmt.Sprint(48<<20))
	n.start("late", 32<<20, "sleep", "1000")
	_, err = n.agent.Runtime().RemovePodSandbox(n.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: n.pod})
	n.must("remove the pod", err)
	if left := n.slices.Children(pods); len(left) > 0 {
		n.Errorf("left: %v", left)
	}
}

// oom lets the kernel kill containers for want of memory, of which systemd takes the scope away at once.
func (n *systemdNode) oom() {
	n.runPod()
	var ids []string
	for i := range 5 {
		// A file each, for /dev/shm is the pod's.
		ids = append(ids, n.start(fmt.Sprintf("greedy%d", i), 12<<20, "dd", "if=/dev/zero", fmt.Sprintf("of=/dev/shm/%d", i), "bs=1M", "count=20"))
	}
	for _, id := range ids {
		testenv.Eventually(n, patience, "the container's end", func() error {
			if n.status(id).State != runtimeapi.ContainerState_CONTAINER_EXITED {
				return errors.New("it runs")
			}
			return nil
		})
		if got := n.status(id); got.Reason != "OOMKilled" || got.ExitCode != 137 {
			n.Errorf("it ended with %s, %d", got.Reason, got.ExitCode)
		}
	}
	n.removePod()
}

// service runs the agent as systemd's service, as on a node: stopping and restarting it does nothing to containers.
func (n *systemdNode) service() {
	n.runPod()
	id := n.start("c", 64<<20, "sleep", "1000")
	pids, err := n.slices.Procs(podSliceDir + "/nodeagent-" + id + ".scope")
	n.must("processes of the scope", err)
	n.agent.Stop()
	const unit = "natest-agent.service"
	file := "/run/systemd/system/" + unit
	line := strings.Join(append([]string{testenv.Binary(n, "nodeagent")}, n.agent.Args()...), " ")
	n.must("write the unit", os.WriteFile(file, []byte("[Unit]\nDefaultDependencies=no\n[Service]\nExecStart="+line+"\nStandardOutput=append:"+n.agent.LogPath+"\nStandardError=append:"+n.agent.LogPath+"\n"), 0o644))
	n.Cleanup(func() { _ = os.Remove(file); systemctl(n.T, "daemon-reload") })
	systemctl(n.T, "daemon-reload")
	for _, verb := range []string{"start", "restart"} {
		systemctl(n.T, verb, unit)
		testenv.Eventually(n, patience, "the agent answers after "+verb, func() error {
			if out := n.agent.Nodectl("version"); out.Code != 0 {
				return errors.New(out.Stderr)
			}
			return nil
		})
		n.wantUnit(unit, "ActiveState=active", "ControlGroup=/system.slice/"+unit)
		if out := n.agent.Nodectl("run", "--rm", "busybox", "echo", "from the service"); out.Stdout != "from the service\n" {
			n.Errorf("nodectl run: %s%s", out.Stdout, out.Stderr)
		}
	}
	systemctl(n.T, "stop", unit)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pids[0])); err != nil {
		n.Errorf("the container did not outlive the service: %v", err)
	}
	n.agent.Start()
	if got := n.exec(id, "echo", "alive"); got != "alive" {
		n.Errorf("exec said %q", got)
	}
	n.removePod()
}

// parents are slices that people name.
func (n *systemdNode) parents() {
	out := n.agent.Nodectl("run", "-d", "--name", "placed", "--cgroup-parent", "natestuser-a.slice", "busybox", "sleep", "1000")
	if out.Code != 0 {
		n.Fatalf("nodectl run: %s", out.Stderr)
	}
	for _, command := range []string{"pause", "unpause"} {
		if out := n.agent.Nodectl(command, "placed"); out.Code != 0 {
			n.Errorf("nodectl %s: %s", command, out.Stderr)
		}
		systemctl(n.T, "daemon-reload")
		out := n.agent.Nodectl("inspect", "-f", "{{.State.Status}}", "placed")
		if want := map[string]string{"pause": "paused\n", "unpause": "running\n"}[command]; out.Stdout != want {
			n.Errorf("after %s it is %s", command, out.Stdout)
		}
	}
	below := n.slices.Children("/natestuser.slice/natestuser-a.slice")
	if len(below) != 1 || !strings.HasPrefix(below[0], "natestuser-a-") {
		n.Errorf("below the slice: %v", below)
	}
	if out := n.agent.Nodectl("run", "--cgroup-parent", "/natestuser", "busybox", "true"); out.Code == 0 || !strings.Contains(out.Stderr, "should be a valid slice") {
		n.Errorf("a parent that is none: %s", out.Stderr)
	}
	if out := n.agent.Nodectl("rm", "-f", "placed"); out.Code != 0 {
		n.Errorf("nodectl rm: %s", out.Stderr)
	}
	if below := n.slices.Children("/natestuser.slice/natestuser-a.slice"); len(below) != 0 {
		n.Errorf("left below the slice: %v", below)
	}
	systemctl(n.T, "stop", "natestuser.slice")
}
