package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

func (n *node) update(id string, res *runtimeapi.LinuxContainerResources) error {
	ctx, cancel := n.Context()
	defer cancel()
	_, err := n.Runtime().UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: id, Linux: res, Annotations: map[string]string{"example.org/why": "a test"},
	})
	return err
}

func (n *node) resources(id string) *runtimeapi.LinuxContainerResources {
	n.t.Helper()
	return n.Status(id).Resources.GetLinux()
}

func (n *node) start(id string) {
	n.t.Helper()
	ctx, cancel := n.Context()
	defer cancel()
	_, err := n.Runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	n.Must("start container", err)
}

// pid is that of the container's first process.
func (n *node) pid(id string) int {
	n.t.Helper()
	ctx, cancel := n.Context()
	defer cancel()
	answer, err := n.Runtime().ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	n.Must("container status", err)
	var info struct{ PID int }
	n.Must("read the container's process ID", json.Unmarshal([]byte(answer.Info["info"]), &info))
	return info.PID
}

func (n *node) containerStats(id string) *runtimeapi.ContainerStats {
	n.t.Helper()
	ctx, cancel := n.Context()
	defer cancel()
	answer, err := n.Runtime().ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: id})
	n.Must("container statistics", err)
	return answer.Stats
}

// limitFile reads a limit from the cgroup of a process, in whichever hierarchy has it.
func limitFile(t *testing.T, pid int, controller, v1, v2 string) string {
	t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for _, try := range []struct{ controllers, dir, file string }{{controller, controller, v1}, {"", "", v2}} {
			if len(fields) < 3 || fields[1] != try.controllers {
				continue
			}
			data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", try.dir, fields[2], try.file))
			if err == nil {
				return strings.TrimSpace(string(data))
			}
		}
	}
	t.Fatalf("process %d has no %s or %s", pid, v1, v2)
	return ""
}

// Limits change in every state, seen in the status and, while it runs, in the cgroup; one that cannot be is refused and
// changes nothing.
func TestUpdateResources(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("update")
	pod := n.RunPod(config)
	ctr := pods.Shell("main", "head -c 40000000 /dev/zero | tail -c 30000000 | sleep 1000")
	ctr.Linux = &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{CpuShares: 512}}
	id := n.Create(pod, config, ctr)
	check := func(state string, want *runtimeapi.LinuxContainerResources) {
		t.Helper()
		if err := n.update(id, want); err != nil {
			t.Fatalf("%s: %v", state, err)
		}
		got := n.resources(id)
		if got.GetMemoryLimitInBytes() != want.MemoryLimitInBytes || got.GetCpuShares() != 512 || got.GetCpusetCpus() != want.CpusetCpus {
			t.Errorf("%s: resources are %v", state, got)
		}
	}
	const mb = 1 << 20
	check("created", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 256 * mb})
	n.start(id)
	pid := n.pid(id)
	limit := func() string { return limitFile(t, pid, "memory", "memory.limit_in_bytes", "memory.max") }
	if got := limit(); got != strconv.Itoa(256*mb) {
		t.Errorf("it starts with a limit of %s", got)
	}
	check("running", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 128 * mb, CpusetCpus: "0"})
	if got, cpus := limit(), limitFile(t, pid, "cpuset", "cpuset.cpus", "cpuset.cpus"); got != strconv.Itoa(128*mb) || cpus != "0" {
		t.Errorf("it runs with a limit of %s on CPU %s", got, cpus)
	}
	testenv.Eventually(t, eventLimit, "the container uses memory", func() error {
		if used := n.containerStats(id).Memory.WorkingSetBytes.GetValue(); used < 25*mb {
			return fmt.Errorf("it uses %d", used)
		}
		return nil
	})
	if err := n.update(id, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 8 * mb, CpuQuota: 50000}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a limit below what is in use: %v", err)
	}
	if err := n.update(id, &runtimeapi.LinuxContainerResources{CpuShares: 600, CpusetCpus: "999"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a CPU that is not there: %v", err)
	}
	if got := n.resources(id); limit() != strconv.Itoa(128*mb) || got.MemoryLimitInBytes != 128*mb || got.CpuQuota != 0 {
		t.Errorf("a refused update leaves a limit of %s and %v", limit(), got)
	}
	if quota := limitFile(t, pid, "cpu", "cpu.cfs_quota_us", "cpu.max"); quota != "-1" && !strings.HasPrefix(quota, "max") {
		t.Errorf("a refused update leaves a quota of %s", quota)
	}
	n.scores(id)
	n.StopContainer(id, 0)
	check("exited", &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 * mb, CpusetCpus: "0"})
}

// scores checks that all processes of a running container get another oom_score_adj, but one that chose its own.
func (n *node) scores(id string) {
	n.t.Helper()
	n.Exec(id, "sh", "-c", "echo 500 >/proc/self/oom_score_adj; sleep 2000 >/dev/null 2>&1 &")
	n.Must("update", n.update(id, &runtimeapi.LinuxContainerResources{OomScoreAdj: 700}))
	n.Must("update again", n.update(id, &runtimeapi.LinuxContainerResources{OomScoreAdj: 800}))
	for command, want := range map[string]string{"sleep 1000": "800", "sleep 2000": "500"} {
		script := `for d in /proc/[0-9]*; do case "$(tr '\0' ' ' <$d/cmdline)" in "` + command + ` "*) cat $d/oom_score_adj; exit;; esac; done`
		if got := strings.TrimSpace(n.Exec(id, "sh", "-c", script)); got != want {
			n.t.Errorf("%s has the score %s, want %s", command, got, want)
		}
	}
	if got := strings.TrimSpace(n.Exec(id, "cat", "/proc/self/oom_score_adj")); got != "800" {
		n.t.Errorf("exec gives the score %s", got)
	}
	if got := n.resources(id).OomScoreAdj; got != 800 {
		n.t.Errorf("the score is told as %d", got)
	}
}

// Figures of a busy pod, and all metrics of a container that the machine can offer.
func TestStatistics(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("busy")
	pod := n.RunPod(config)
	id := n.Started(pod, config, pods.Shell("main", "while :; do :; done"))
	n.Exec(id, "sh", "-c", "head -c 1000000 /dev/zero >/file")
	ctx, cancel := n.Context()
	defer cancel()
	testenv.Eventually(t, eventLimit, "the container is seen to be busy", func() error {
		s := n.containerStats(id)
		if s.Cpu.UsageNanoCores.GetValue() < 1e7 || s.WritableLayer.UsedBytes.GetValue() < 1e6 {
			return fmt.Errorf("it uses %v and %v", s.Cpu, s.WritableLayer)
		}
		return nil
	})
	stats, err := n.Runtime().ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	n.Must("list statistics", err)
	if len(stats.Stats) != 1 || stats.Stats[0].Linux.Network.GetDefaultInterface().GetName() != "eth0" || len(stats.Stats[0].Linux.Containers) != 1 ||
		stats.Stats[0].Linux.Process.ProcessCount.GetValue() < 1 {
		t.Errorf("statistics of pods: %v", stats.Stats)
	}
	answer, err := n.Runtime().ListPodSandboxMetrics(ctx, &runtimeapi.ListPodSandboxMetricsRequest{})
	n.Must("list metrics", err)
	if len(answer.PodMetrics) != 1 || len(answer.PodMetrics[0].ContainerMetrics) != 1 || len(answer.PodMetrics[0].Metrics) != 8 {
		t.Fatalf("metrics %v", answer.PodMetrics)
	}
	values := map[string]uint64{}
	for _, m := range answer.PodMetrics[0].ContainerMetrics[0].Metrics {
		values[m.Name] = m.Value.Value
	}
	for name, least := range map[string]uint64{
		"container_processes": 1, "container_threads": 1, "container_file_descriptors": 3, "container_memory_rss": 1 << 12,
		"container_ulimits_soft": 64, "container_fs_limit_bytes": 1 << 20, "container_fs_usage_bytes": 1e6, "container_last_seen": 1e9,
	} {
		if values[name] < least {
			t.Errorf("%s is %d, want at least %d", name, values[name], least)
		}
	}
}
