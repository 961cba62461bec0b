package main

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakePods is CRI with two pods: coredns-x is ready, old has ended.
type fakePods struct {
	runtime.UnimplementedRuntimeServiceServer
}

const oldPodID = "5555555555555555555555555555555555555555555555555555555555555555"

func (fakePods) ListPodSandbox(context.Context, *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	ago := func(d time.Duration) int64 { return time.Now().Add(-d - time.Minute).UnixNano() }
	return &runtime.ListPodSandboxResponse{Items: []*runtime.PodSandbox{
		{Id: oldPodID, Metadata: &runtime.PodSandboxMetadata{Name: "old", Namespace: "default", Uid: "u2"}, State: runtime.PodSandboxState_SANDBOX_NOTREADY, CreatedAt: ago(72 * time.Hour)},
		{Id: podID, Metadata: &runtime.PodSandboxMetadata{Name: "coredns-x", Namespace: "kube-system", Uid: "u", Attempt: 1}, CreatedAt: ago(20 * time.Hour), Labels: map[string]string{"k8s-app": "dns"}},
	}}, nil
}

func (fakePods) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	return &runtime.ListContainersResponse{Containers: []*runtime.Container{
		{Id: webHash[len("sha256:"):], PodSandboxId: podID, State: runtime.ContainerState_CONTAINER_RUNNING}, {PodSandboxId: podID, State: runtime.ContainerState_CONTAINER_EXITED},
	}}, nil
}

func (fakePods) PodSandboxStatus(_ context.Context, r *runtime.PodSandboxStatusRequest) (*runtime.PodSandboxStatusResponse, error) {
	s := &runtime.PodSandboxStatus{Id: r.GetPodSandboxId(), State: runtime.PodSandboxState_SANDBOX_NOTREADY}
	if r.GetPodSandboxId() == podID {
		s.State, s.Network = runtime.PodSandboxState_SANDBOX_READY, &runtime.PodSandboxNetworkStatus{Ip: "10.1.2.3"}
	}
	return &runtime.PodSandboxStatusResponse{Status: s, Info: map[string]string{"cgroup": `{"path":"/pods/x"}`, "note": "plain"}}, nil
}

func (fakePods) ListPodSandboxStats(context.Context, *runtime.ListPodSandboxStatsRequest) (*runtime.ListPodSandboxStatsResponse, error) {
	value := func(n uint64) *runtime.UInt64Value { return &runtime.UInt64Value{Value: n} }
	return &runtime.ListPodSandboxStatsResponse{Stats: []*runtime.PodSandboxStats{{
		Attributes: &runtime.PodSandboxAttributes{Id: podID, Metadata: &runtime.PodSandboxMetadata{Name: "coredns-x", Namespace: "kube-system"}},
		Linux: &runtime.LinuxPodSandboxStats{
			Cpu:     &runtime.CpuUsage{Timestamp: 1, UsageCoreNanoSeconds: value(5)},
			Memory:  &runtime.MemoryUsage{WorkingSetBytes: value(64 << 20), AvailableBytes: value(64 << 20)},
			Network: &runtime.NetworkUsage{DefaultInterface: &runtime.NetworkInterfaceUsage{RxBytes: value(1500)}},
			Process: &runtime.ProcessUsage{ProcessCount: value(4)},
		},
	}}}, nil
}

func (fakePods) RunPodSandbox(_ context.Context, r *runtime.RunPodSandboxRequest) (*runtime.RunPodSandboxResponse, error) {
	if r.GetConfig().GetHostname() != "h" || r.GetConfig().GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != runtime.NamespaceMode_NODE {
		return nil, status.Error(codes.InvalidArgument, "not what the file says")
	}
	return &runtime.RunPodSandboxResponse{PodSandboxId: newID}, nil
}

func (fakePods) StopPodSandbox(context.Context, *runtime.StopPodSandboxRequest) (*runtime.StopPodSandboxResponse, error) {
	return &runtime.StopPodSandboxResponse{}, nil
}

func (fakePods) RemovePodSandbox(context.Context, *runtime.RemovePodSandboxRequest) (*runtime.RemovePodSandboxResponse, error) {
	return &runtime.RemovePodSandboxResponse{}, nil
}

// ListContainerStats has one that runs, and one that has ended.
func (fakePods) ListContainerStats(_ context.Context, r *runtime.ListContainerStatsRequest) (*runtime.ListContainerStatsResponse, error) {
	if r.GetFilter().GetLabelSelector()["none"] != "" {
		return &runtime.ListContainerStatsResponse{}, nil
	}
	value := func(n uint64) *runtime.UInt64Value { return &runtime.UInt64Value{Value: n} }
	stats := &runtime.ContainerStats{
		Attributes: &runtime.ContainerAttributes{Id: webHash[len("sha256:"):], Metadata: &runtime.ContainerMetadata{Name: "dns"}},
		Cpu:        &runtime.CpuUsage{Timestamp: 1, UsageCoreNanoSeconds: value(5)}, Memory: &runtime.MemoryUsage{WorkingSetBytes: value(2_500_000)},
		WritableLayer: &runtime.FilesystemUsage{UsedBytes: value(8192), InodesUsed: value(5)}, Swap: &runtime.SwapUsage{SwapUsageBytes: value(0)},
	}
	ended := &runtime.ContainerStats{Attributes: &runtime.ContainerAttributes{Id: jobID, Metadata: &runtime.ContainerMetadata{Name: "ended"}}}
	return &runtime.ListContainerStatsResponse{Stats: []*runtime.ContainerStats{stats, ended}}, nil
}

func (fakePods) ListMetricDescriptors(context.Context, *runtime.ListMetricDescriptorsRequest) (*runtime.ListMetricDescriptorsResponse, error) {
	return &runtime.ListMetricDescriptorsResponse{Descriptors: []*runtime.MetricDescriptor{
		{Name: "bytes_total", Help: "Bytes\nreceived.", LabelKeys: []string{"pod", "interface"}}, {Name: "other", Help: "Nobody has it."},
	}}, nil
}

func (fakePods) ListPodSandboxMetrics(context.Context, *runtime.ListPodSandboxMetricsRequest) (*runtime.ListPodSandboxMetricsResponse, error) {
	return &runtime.ListPodSandboxMetricsResponse{PodMetrics: []*runtime.PodSandboxMetrics{{
		PodSandboxId: podID, Metrics: []*runtime.Metric{{
			Name: "bytes_total", Timestamp: 1_700_000_000_000_000_000, MetricType: runtime.MetricType_COUNTER,
			LabelValues: []string{"coredns-x", `e"0`}, Value: &runtime.UInt64Value{Value: 7},
		}},
	}}}, nil
}
