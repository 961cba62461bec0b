package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// wantCode fails unless err has a code and names all words.
func wantCode(t *testing.T, err error, code codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("got %v, want code %v", err, code)
	}
	for _, word := range words {
		if !strings.Contains(status.Convert(err).Message(), word) {
			t.Errorf("%q does not name %q", status.Convert(err).Message(), word)
		}
	}
}

func TestRunPodSandbox(t *testing.T) {
	h := newHarness()
	h.config.Handlers = []Handler{{Name: "other"}}
	var got sandbox.RunPodRequest
	h.sandboxes.runPod = func(req sandbox.RunPodRequest) (string, error) {
		got = req
		return "id", nil
	}
	h.serve(t)
	resp, err := h.RunPodSandbox(t.Context(), &runtime.RunPodSandboxRequest{Config: podConfig("p"), RuntimeHandler: "other"})
	if err != nil || resp.GetPodSandboxId() != "id" {
		t.Fatal(resp, err)
	}
	if got.Owner != sandbox.OwnerCRI || got.Handler != "other" {
		t.Errorf("got %+v", got)
	}
	if diff := cmp.Diff(podConfig("p"), got.Config, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestRunPodSandboxRefuses(t *testing.T) {
	h := newHarness().serve(t)
	change := func(f func(*runtime.PodSandboxConfig)) *runtime.PodSandboxConfig {
		config := podConfig("p")
		f(config)
		return config
	}
	for field, req := range map[string]*runtime.RunPodSandboxRequest{
		"config: ":                  {},
		"config.metadata: ":         {Config: &runtime.PodSandboxConfig{}},
		"config.metadata.name":      {Config: change(func(c *runtime.PodSandboxConfig) { c.Metadata.Name = "" })},
		"config.metadata.namespace": {Config: change(func(c *runtime.PodSandboxConfig) { c.Metadata.Namespace = "" })},
		"config.metadata.uid":       {Config: change(func(c *runtime.PodSandboxConfig) { c.Metadata.Uid = "" })},
		"runtime_handler":           {Config: podConfig("p"), RuntimeHandler: "unknown"},
		"run_as_group": {Config: change(func(c *runtime.PodSandboxConfig) {
			c.Linux = &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{RunAsGroup: &runtime.Int64Value{Value: 5}}}
		})},
		"config.port_mappings[1].host_port": {Config: change(func(c *runtime.PodSandboxConfig) {
			c.PortMappings = []*runtime.PortMapping{{ContainerPort: 80}, {ContainerPort: 80, HostPort: 70000}}
		})},
		"config.port_mappings[0].container_port": {Config: change(func(c *runtime.PodSandboxConfig) {
			c.PortMappings = []*runtime.PortMapping{{HostPort: 80}}
		})},
	} {
		_, err := h.RunPodSandbox(t.Context(), req)
		wantCode(t, err, codes.InvalidArgument, field)
	}
}

func TestStopAndRemovePodSandbox(t *testing.T) {
	h := newHarness()
	foreign := testPod("ff")
	foreign.Owner = sandbox.OwnerNodectl
	h.sandboxes.pods = []sandbox.Pod{testPod("aa"), testPod("ab"), foreign}
	var stopped, removed []string
	h.sandboxes.stopPod = func(id string) error { stopped = append(stopped, id); return nil }
	h.sandboxes.removePod = func(id string) error { removed = append(removed, id); return nil }
	h.serve(t)
	for _, id := range []string{"aa", testID("ab"), "unknown", "ff", testID("ff")} {
		if _, err := h.StopPodSandbox(t.Context(), &runtime.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Error(err)
		}
		if _, err := h.RemovePodSandbox(t.Context(), &runtime.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Error(err)
		}
	}
	want := []string{testID("aa"), testID("ab")}
	if !slices.Equal(stopped, want) || !slices.Equal(removed, want) {
		t.Errorf("stopped %v, removed %v", stopped, removed)
	}
	_, err := h.StopPodSandbox(t.Context(), &runtime.StopPodSandboxRequest{})
	wantCode(t, err, codes.InvalidArgument, "pod_sandbox_id")
	_, err = h.RemovePodSandbox(t.Context(), &runtime.RemovePodSandboxRequest{})
	wantCode(t, err, codes.InvalidArgument, "pod_sandbox_id")

	h.sandboxes.stopPod = func(id string) error {
		return fmt.Errorf("stop pod %s: stage network: %w", id, context.DeadlineExceeded)
	}
	_, err = h.StopPodSandbox(t.Context(), &runtime.StopPodSandboxRequest{PodSandboxId: "aa"})
	wantCode(t, err, codes.DeadlineExceeded, "stage network")
}

func TestPodSandboxStatus(t *testing.T) {
	h := newHarness()
	pod := testPod("aa")
	pod.Handler, pod.PID, pod.NetNS = "h", 42, "/run/ns/net"
	pod.Config.Linux = &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{
		NamespaceOptions: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_CONTAINER},
	}}
	pod.Network = &network.Result{Addresses: []netip.Prefix{
		netip.MustParsePrefix("10.1.2.3/24"), netip.MustParsePrefix("fd00::5/64"),
	}}
	h.sandboxes.pods = []sandbox.Pod{pod, testPod("bb")}
	h.sandboxes.containers = []sandbox.Container{testContainer("c1", "aa"), testContainer("c2", "bb")}
	h.serve(t)

	resp, err := h.PodSandboxStatus(t.Context(), &runtime.PodSandboxStatusRequest{PodSandboxId: "aa", Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	want := &runtime.PodSandboxStatus{
		Id: testID("aa"), Metadata: pod.Config.Metadata, CreatedAt: 100_000_000_005,
		Network:        &runtime.PodSandboxNetworkStatus{Ip: "10.1.2.3", AdditionalIps: []*runtime.PodIP{{Ip: "fd00::5"}}},
		Linux:          &runtime.LinuxPodSandboxStatus{Namespaces: &runtime.Namespace{Options: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_CONTAINER}}},
		Labels:         pod.Config.Labels,
		Annotations:    pod.Config.Annotations,
		RuntimeHandler: "h",
	}
	if diff := cmp.Diff(want, resp.GetStatus(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if len(resp.GetContainersStatuses()) != 1 || resp.GetContainersStatuses()[0].GetId() != testID("c1") || resp.GetTimestamp() <= 0 {
		t.Errorf("containers %v at %d", resp.GetContainersStatuses(), resp.GetTimestamp())
	}
	var info struct {
		PID              int
		NetworkNamespace string
		Config           struct{ Metadata struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(resp.GetInfo()["info"]), &info); err != nil {
		t.Fatal(err)
	}
	if info.PID != 42 || info.NetworkNamespace != "/run/ns/net" || info.Config.Metadata.Name != "pod-aa" {
		t.Errorf("info %+v", info)
	}

	resp, err = h.PodSandboxStatus(t.Context(), &runtime.PodSandboxStatusRequest{PodSandboxId: "bb"})
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetStatus().GetLinux().GetNamespaces().GetOptions() == nil || resp.GetStatus().GetNetwork() == nil || len(resp.GetInfo()) != 0 {
		t.Errorf("got %v", resp)
	}
	_, err = h.PodSandboxStatus(t.Context(), &runtime.PodSandboxStatusRequest{PodSandboxId: "cc"})
	wantCode(t, err, codes.NotFound, "cc")
}

func TestListPodSandbox(t *testing.T) {
	h := newHarness()
	stopping, foreign := testPod("ab"), testPod("ff")
	stopping.State, foreign.Owner = sandbox.PodStopping, sandbox.OwnerNodectl
	h.sandboxes.pods = []sandbox.Pod{testPod("aa"), foreign, stopping}
	h.serve(t)
	ready := &runtime.PodSandboxStateValue{State: runtime.PodSandboxState_SANDBOX_READY}
	notReady := &runtime.PodSandboxStateValue{State: runtime.PodSandboxState_SANDBOX_NOTREADY}
	for name, test := range map[string]struct {
		filter *runtime.PodSandboxFilter
		want   []string
	}{
		"all":       {nil, []string{"aa", "ab"}},
		"empty":     {&runtime.PodSandboxFilter{}, []string{"aa", "ab"}},
		"ready":     {&runtime.PodSandboxFilter{State: ready}, []string{"aa"}},
		"notready":  {&runtime.PodSandboxFilter{State: notReady}, []string{"ab"}},
		"prefix":    {&runtime.PodSandboxFilter{Id: "ab"}, []string{"ab"}},
		"ambiguous": {&runtime.PodSandboxFilter{Id: "a"}, nil},
		"foreign":   {&runtime.PodSandboxFilter{Id: "ff"}, nil},
		"labels":    {&runtime.PodSandboxFilter{LabelSelector: map[string]string{"tier": "web", "app": "pod-aa"}}, []string{"aa"}},
		"and":       {&runtime.PodSandboxFilter{Id: "aa", State: notReady}, nil},
	} {
		resp, err := h.ListPodSandbox(t.Context(), &runtime.ListPodSandboxRequest{Filter: test.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, item := range resp.GetItems() {
			got = append(got, item.GetId()[:2])
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
	resp, err := h.ListPodSandbox(t.Context(), &runtime.ListPodSandboxRequest{Filter: &runtime.PodSandboxFilter{Id: "aa"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetItems()[0]; got.GetCreatedAt() != 100_000_000_005 || got.GetAnnotations()["note"] != "a\x01b" || got.GetMetadata().GetAttempt() != 2 {
		t.Errorf("got %v", got)
	}
}

func TestUpdatePodSandboxResources(t *testing.T) {
	h := newHarness()
	h.sandboxes.pods = []sandbox.Pod{testPod("aa")}
	var shares int64
	h.sandboxes.updatePod = func(_ string, overhead, res *runtime.LinuxContainerResources) error {
		shares = overhead.GetCpuShares() + res.GetCpuShares()
		return nil
	}
	h.serve(t)
	_, err := h.UpdatePodSandboxResources(t.Context(), &runtime.UpdatePodSandboxResourcesRequest{
		PodSandboxId: "aa", Overhead: &runtime.LinuxContainerResources{CpuShares: 2}, Resources: &runtime.LinuxContainerResources{CpuShares: 40},
	})
	if err != nil || shares != 42 {
		t.Errorf("shares %d, %v", shares, err)
	}
}

func TestErrorsBecomeCodes(t *testing.T) {
	h := newHarness()
	h.sandboxes.pods = []sandbox.Pod{testPod("aa")}
	var fail error
	h.sandboxes.stopPod = func(string) error { return fail }
	h.serve(t)
	for want, err := range map[codes.Code]error{
		codes.InvalidArgument:    errdefs.ErrInvalidArgument,
		codes.NotFound:           errdefs.ErrNotFound,
		codes.AlreadyExists:      errdefs.ErrAlreadyExists,
		codes.PermissionDenied:   errdefs.ErrPermissionDenied,
		codes.Unauthenticated:    errdefs.ErrUnauthenticated,
		codes.ResourceExhausted:  errdefs.ErrResourceExhausted,
		codes.FailedPrecondition: errdefs.ErrFailedPrecondition,
		codes.Aborted:            errdefs.ErrAborted,
		codes.OutOfRange:         errdefs.ErrOutOfRange,
		codes.Unimplemented:      errdefs.ErrNotImplemented,
		codes.Unavailable:        errdefs.ErrUnavailable,
		codes.DataLoss:           errdefs.ErrDataLoss,
		codes.Internal:           errdefs.ErrInternal,
		codes.DeadlineExceeded:   context.DeadlineExceeded,
		codes.Canceled:           context.Canceled,
		codes.Unknown:            errors.New("no kind"),
	} {
		fail = fmt.Errorf("stop pod aa: %w", err)
		_, got := h.StopPodSandbox(t.Context(), &runtime.StopPodSandboxRequest{PodSandboxId: "aa"})
		wantCode(t, got, want, "stop pod aa: ")
	}
	if n := strings.Count(h.log.String(), "method=StopPodSandbox"); n != 16 {
		t.Errorf("logged %d failures of 16:\n%s", n, h.log.String())
	}
	if !strings.Contains(h.log.String(), "pod=aa") || !strings.Contains(h.log.String(), "duration=") {
		t.Errorf("no pod or duration in %s", h.log.String())
	}
}

func TestPanicIsInternal(t *testing.T) {
	h := newHarness()
	h.sandboxes.pods = []sandbox.Pod{testPod("aa")}
	h.sandboxes.stopPod = func(string) error { panic("boom") }
	h.sandboxes.subscribe = func() (<-chan sandbox.Event, func()) { panic("bang") }
	h.serve(t)
	_, err := h.StopPodSandbox(t.Context(), &runtime.StopPodSandboxRequest{PodSandboxId: "aa"})
	wantCode(t, err, codes.Internal, "boom")
	events, err := h.GetContainerEvents(t.Context(), &runtime.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = events.Recv()
	wantCode(t, err, codes.Internal, "bang")
	if !strings.Contains(h.log.String(), "TestPanicIsInternal") {
		t.Errorf("no stack in %s", h.log.String())
	}
	if strings.Contains(err.Error(), "goroutine") {
		t.Errorf("the client is shown the stack: %v", err)
	}
}
