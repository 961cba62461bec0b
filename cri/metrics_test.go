package cri

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
	"github.com/nodeagent/nodeagent/sandbox/procfs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// expectedMetrics are those that kubelet's own test of CRI metrics asks for or
// allows (test/e2e_node, CRIContainerMetrics), without the counters of disk
// schedulers that kernels no longer have.
const expectedMetrics = `container_cpu_cfs_periods_total container_cpu_cfs_throttled_periods_total
container_cpu_cfs_throttled_seconds_total container_cpu_system_seconds_total container_cpu_usage_seconds_total
container_cpu_user_seconds_total container_file_descriptors container_fs_reads_bytes_total container_fs_reads_total
container_fs_usage_bytes container_fs_writes_bytes_total container_fs_writes_total container_last_seen
container_memory_cache container_memory_failures_total container_memory_mapped_file container_memory_max_usage_bytes
container_memory_rss container_memory_swap container_memory_usage_bytes container_memory_working_set_bytes
container_oom_events_total container_processes container_sockets container_spec_cpu_period container_spec_cpu_shares
container_spec_memory_limit_bytes container_spec_memory_swap_limit_bytes container_start_time_seconds container_threads
container_blkio_device_usage_total container_fs_inodes_free container_fs_inodes_total container_fs_limit_bytes
container_memory_failcnt container_memory_kernel_usage container_hugetlb_max_usage_bytes container_hugetlb_usage_bytes
container_spec_cpu_quota container_spec_memory_reservation_limit_bytes container_ulimits_soft
container_pressure_cpu_stalled_seconds_total container_pressure_cpu_waiting_seconds_total
container_pressure_io_stalled_seconds_total container_pressure_io_waiting_seconds_total
container_pressure_memory_stalled_seconds_total container_pressure_memory_waiting_seconds_total
container_network_receive_bytes_total container_network_receive_errors_total
container_network_receive_packets_dropped_total container_network_receive_packets_total
container_network_transmit_bytes_total container_network_transmit_errors_total
container_network_transmit_packets_dropped_total container_network_transmit_packets_total
container_memory_total_active_file_bytes container_memory_total_inactive_file_bytes container_threads_max`

// fullDetail has a figure for each metric.
func fullDetail() *sandbox.ContainerDetail {
	psi := cgroups.PSIStats{Some: cgroups.PSILine{TotalMicros: 3_900_000}, Full: cgroups.PSILine{TotalMicros: 2_000_000}}
	return &sandbox.ContainerDetail{
		Cgroup: &cgroups.Stats{
			At: time.Unix(1000, 5), CPU: &cgroups.CPUStats{UsageNanos: 7_900_000_000, UserNanos: 4e9, ThrottledPeriods: 6},
			Memory:  &cgroups.MemoryStats{Usage: 4096, MajorPageFaults: 6, OOMKills: 2, InactiveFile: 11},
			Pids:    &cgroups.PidsStats{Current: 12, Limit: 13},
			IO:      []cgroups.IOStats{{Major: 8, Minor: 1, ReadBytes: 14, WriteOps: 15}, {Major: 9, WriteBytes: 16}},
			PSI:     map[string]cgroups.PSIStats{"cpu": psi, "memory": psi, "io": psi},
			Hugetlb: map[string]cgroups.HugetlbStats{"2MB": {Usage: 2 << 20}, "1GB": {MaxUsage: 1 << 30}},
		},
		Processes: 3, Open: procfs.Open{Files: 17, Sockets: 4}, MaxOpenFiles: 1024, Disks: []string{"/dev/sda1", "9:0"},
		Filesystem: procfs.Filesystem{Device: "/dev/sdb", Bytes: 1 << 40, Inodes: 100, FreeInodes: 60}, LayerBytes: 9,
	}
}

func metricsHarness(t *testing.T) *harness {
	h := newHarness()
	h.sandboxes.pods = []sandbox.Pod{testPod("aa")}
	ctr := testContainer("c1", "aa")
	ctr.Config.Linux = &runtime.LinuxContainerConfig{Resources: &runtime.LinuxContainerResources{
		CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 1 << 20, MemorySwapLimitInBytes: 2 << 20,
		Unified: map[string]string{"memory.low": "4096"},
	}}
	h.sandboxes.containers = []sandbox.Container{ctr}
	h.sandboxes.podDetail = sandbox.PodDetail{At: time.Unix(1001, 0), Links: []namespace.Link{
		{Name: "eth0", Rx: namespace.Counters{Bytes: 1, Errors: 3}, Tx: namespace.Counters{Bytes: 2}},
		{Name: "net1", Tx: namespace.Counters{Dropped: 5}},
	}}
	h.sandboxes.detail = func(string) (*sandbox.ContainerDetail, error) { return fullDetail(), nil }
	h.serve(t)
	return h
}

// readPod gives the metrics of the only pod and its only container.
func readPod(t *testing.T, h *harness) (pod, ctr []*runtime.Metric) {
	t.Helper()
	resp, err := h.ListPodSandboxMetrics(t.Context(), &runtime.ListPodSandboxMetricsRequest{})
	if err != nil || len(resp.GetPodMetrics()) != 1 {
		t.Fatal(resp, err)
	}
	for _, c := range resp.PodMetrics[0].ContainerMetrics {
		ctr = append(ctr, c.Metrics...)
	}
	return resp.PodMetrics[0].Metrics, ctr
}

// describe gives the label keys of each metric that is described.
func describe(t *testing.T, h *harness) map[string][]string {
	t.Helper()
	described, err := h.ListMetricDescriptors(t.Context(), &runtime.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]string{}
	for _, d := range described.GetDescriptors() {
		if keys[d.GetName()] != nil || d.GetHelp() == "" {
			t.Errorf("descriptor %v", d)
		}
		keys[d.GetName()] = d.GetLabelKeys()
	}
	for name := range strings.FieldsSeq(expectedMetrics) {
		if keys[name] == nil {
			t.Errorf("%s is not described", name)
		}
	}
	if n := len(strings.Fields(expectedMetrics)); len(keys) != n {
		t.Errorf("%d metrics are described, %d are expected", len(keys), n)
	}
	return keys
}

func TestMetrics(t *testing.T) {
	h := metricsHarness(t)
	keys := describe(t, h)
	pod, ctr := readPod(t, h)
	values, seen := map[string]uint64{}, map[string]bool{}
	for _, m := range append(pod, ctr...) {
		labels := keys[m.GetName()]
		if labels == nil || len(labels) != len(m.GetLabelValues()) || m.GetLabelValues()[0] != "pod-aa" || m.GetLabelValues()[5] == "" || m.Timestamp < 1000e9 {
			t.Errorf("labels %v of %s do not fit %v", m.GetLabelValues(), m.GetName(), labels)
		}
		key := strings.Join(append([]string{m.GetName()}, m.GetLabelValues()[len(baseLabels):]...), " ")
		if _, twice := values[key]; twice {
			t.Errorf("%s is told twice", key)
		}
		seen[m.GetName()], values[key] = true, m.GetValue().GetValue()
	}
	if len(seen) != len(keys) {
		t.Errorf("%d metrics of %d described", len(seen), len(keys))
	}
	for name, want := range map[string]uint64{
		"container_cpu_usage_seconds_total total":               7,
		"container_cpu_user_seconds_total":                      4,
		"container_memory_failures_total pgmajfault container":  6,
		"container_memory_total_inactive_file_bytes":            11,
		"container_oom_events_total":                            2,
		"container_pressure_io_stalled_seconds_total":           2,
		"container_pressure_cpu_waiting_seconds_total":          3,
		"container_hugetlb_usage_bytes 2MB":                     2 << 20,
		"container_fs_usage_bytes /dev/sdb":                     9,
		"container_fs_inodes_free /dev/sdb":                     60,
		"container_fs_writes_total /dev/sda1":                   15,
		"container_blkio_device_usage_total 9:0 9 0 Write":      16,
		"container_spec_cpu_quota":                              50000,
		"container_spec_memory_reservation_limit_bytes":         4096,
		"container_start_time_seconds":                          201,
		"container_last_seen":                                   1000,
		"container_processes":                                   3,
		"container_threads":                                     12,
		"container_threads_max":                                 13,
		"container_sockets":                                     4,
		"container_file_descriptors":                            17,
		"container_ulimits_soft max_open_files":                 1024,
		"container_network_transmit_bytes_total eth0":           2,
		"container_network_receive_errors_total eth0":           3,
		"container_network_transmit_packets_dropped_total net1": 5,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}

// What the host does not offer is left out, not told as zero; a container
// that cannot be read leaves out itself alone.
func TestMetricsNotOffered(t *testing.T) {
	h := metricsHarness(t)
	h.sandboxes.detail = func(string) (*sandbox.ContainerDetail, error) {
		return &sandbox.ContainerDetail{Cgroup: &cgroups.Stats{At: time.Unix(1000, 0)}}, nil
	}
	h.sandboxes.podDetail.Links = nil
	h.sandboxes.containers[0].Config.Linux = nil
	pod, ctr := readPod(t, h)
	if len(pod) != 0 {
		t.Errorf("got %v", pod)
	}
	for _, m := range ctr {
		for _, absent := range []string{"container_cpu", "container_memory", "container_pressure", "container_hugetlb", "container_threads", "container_ulimits"} {
			if strings.HasPrefix(m.Name, absent) {
				t.Errorf("got %v", m)
			}
		}
	}
	h.sandboxes.detail = func(string) (*sandbox.ContainerDetail, error) { return nil, errors.New("it hangs") }
	h.sandboxes.podDetail.Links = []namespace.Link{{Name: "eth0"}}
	if pod, ctr = readPod(t, h); len(pod) != 8 || len(ctr) != 0 {
		t.Errorf("got %v, %v", pod, ctr)
	}
}
