package cri

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// collect reads a stream to its end: the items of each message.
func collect[M, T any](t *testing.T, stream grpc.ServerStreamingClient[M], err error, items func(*M) []T) [][]T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var messages [][]T
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return messages
		}
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, items(message))
	}
}

func TestStreamLists(t *testing.T) {
	h := newHarness()
	h.sandboxes.podStatsFn = func(string) (*runtime.PodSandboxStats, error) { return &runtime.PodSandboxStats{}, nil }
	h.sandboxes.ctrStats = func(string) (*runtime.ContainerStats, error) { return &runtime.ContainerStats{}, nil }
	h.serve(t)
	ctx := t.Context()
	count := func() []int {
		pods, err := h.StreamPodSandboxes(ctx, &runtime.StreamPodSandboxesRequest{})
		a := collect(t, pods, err, (*runtime.StreamPodSandboxesResponse).GetPodSandboxes)
		ctrs, err := h.StreamContainers(ctx, &runtime.StreamContainersRequest{})
		b := collect(t, ctrs, err, (*runtime.StreamContainersResponse).GetContainers)
		ctrStats, err := h.StreamContainerStats(ctx, &runtime.StreamContainerStatsRequest{})
		c := collect(t, ctrStats, err, (*runtime.StreamContainerStatsResponse).GetContainerStats)
		podStats, err := h.StreamPodSandboxStats(ctx, &runtime.StreamPodSandboxStatsRequest{})
		d := collect(t, podStats, err, (*runtime.StreamPodSandboxStatsResponse).GetPodSandboxStats)
		metrics, err := h.StreamPodSandboxMetrics(ctx, &runtime.StreamPodSandboxMetricsRequest{})
		e := collect(t, metrics, err, (*runtime.StreamPodSandboxMetricsResponse).GetPodSandboxMetrics)
		images, err := h.image.StreamImages(ctx, &runtime.StreamImagesRequest{})
		f := collect(t, images, err, (*runtime.StreamImagesResponse).GetImages)
		return []int{len(a), len(b), len(c), len(d), len(e), len(f)}
	}
	if got := count(); !slices.Equal(got, make([]int, 6)) {
		t.Errorf("empty lists are %v messages", got)
	}
	h.sandboxes.pods = []sandbox.Pod{testPod("aa")}
	h.sandboxes.containers = []sandbox.Container{testContainer("c1", "aa")}
	h.images.images = []imageservice.Image{userImage("aa", "")}
	if got := count(); !slices.Equal(got, []int{1, 1, 1, 1, 1, 1}) {
		t.Errorf("lists of one are %v messages", got)
	}
}

func TestStreamListsInParts(t *testing.T) {
	h := newHarness()
	for i := range 50 {
		pod := testPod(fmt.Sprintf("%02d", i))
		pod.Config.Annotations = map[string]string{"big": strings.Repeat("x", 200<<10)}
		if i == 20 {
			pod.Config.Annotations["big"] = strings.Repeat("x", 3<<20)
		}
		h.sandboxes.pods = append(h.sandboxes.pods, pod)
	}
	h.serve(t)
	stream, err := h.StreamPodSandboxes(t.Context(), &runtime.StreamPodSandboxesRequest{})
	messages := collect(t, stream, err, (*runtime.StreamPodSandboxesResponse).GetPodSandboxes)
	var got []string
	for _, pods := range messages {
		if len(pods) == 0 || len(pods) > 5 {
			t.Errorf("message of %d", len(pods))
		}
		for _, pod := range pods {
			got = append(got, pod.GetId()[:2])
		}
	}
	if len(got) != 50 || !slices.IsSorted(got) || len(slices.Compact(got)) != 50 || len(messages) < 11 {
		t.Errorf("%d messages with %v", len(messages), got)
	}
}

func TestGetContainerEvents(t *testing.T) {
	h := newHarness()
	h.sandboxes.containers = []sandbox.Container{testContainer("c1", "aa"), testContainer("c2", "aa")}
	feed := make(chan sandbox.Event)
	cancelled := make(chan struct{})
	h.sandboxes.subscribe = func() (<-chan sandbox.Event, func()) {
		return feed, sync.OnceFunc(func() { close(cancelled) })
	}
	h.serve(t)
	events, err := h.GetContainerEvents(t.Context(), &runtime.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(50, 0)
	foreign := testPod("ff")
	foreign.Owner = sandbox.OwnerNodectl
	send := func(kind sandbox.EventType, pod sandbox.Pod, at time.Time) {
		feed <- sandbox.Event{
			Type: kind, ContainerID: testID("c1"), At: at, Pod: pod,
		}
	}
	send(sandbox.EventCreated, foreign, at)
	send(sandbox.EventOOM, testPod("aa"), at)
	send(sandbox.EventCreated, testPod("aa"), at)
	var last int64
	for i, kind := range []sandbox.EventType{sandbox.EventStarted, sandbox.EventStopped, sandbox.EventDeleted, ""} {
		got, err := events.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got.GetContainerEventType() != runtime.ContainerEventType(i) || got.GetContainerId() != testID("c1") ||
			got.GetPodSandboxStatus().GetId() != testID("aa") || len(got.GetContainersStatuses()) != 2 {
			t.Errorf("event %d: %v", i, got)
		}
		if got.GetCreatedAt() <= last {
			t.Errorf("event %d: time %d after %d", i, got.GetCreatedAt(), last)
		}
		last = got.GetCreatedAt()
		if kind != "" {
			// Never later: the clock may be set back.
			send(kind, testPod("aa"), at.Add(-time.Duration(i)*time.Second))
		}
	}
	close(feed)
	_, err = events.Recv()
	wantCode(t, err, codes.ResourceExhausted, "too slow")
	select {
	case <-cancelled:
	case <-time.After(10 * time.Second):
		t.Error("the subscription is left behind")
	}
}

func figure(n uint64) *runtime.UInt64Value { return &runtime.UInt64Value{Value: n} }

func TestStats(t *testing.T) {
	h := newHarness()
	exited, broken, gone := testContainer("c2", "aa"), testContainer("c3", "aa"), testContainer("c4", "aa")
	exited.State = sandbox.ContainerExited
	stopped := testPod("bb")
	stopped.State = sandbox.PodNotReady
	h.sandboxes.pods = []sandbox.Pod{testPod("aa"), stopped}
	h.sandboxes.containers = []sandbox.Container{testContainer("c1", "aa"), exited, broken, gone}
	h.sandboxes.ctrStats = func(id string) (*runtime.ContainerStats, error) {
		switch id[:2] {
		case "c3":
			return nil, errors.New("cgroup is broken")
		case "c4":
			return nil, errdefs.ErrNotFound
		}
		return &runtime.ContainerStats{Attributes: &runtime.ContainerAttributes{Id: id}, Cpu: &runtime.CpuUsage{UsageCoreNanoSeconds: figure(7e9)}}, nil
	}
	h.sandboxes.podStatsFn = func(id string) (*runtime.PodSandboxStats, error) {
		return &runtime.PodSandboxStats{Attributes: &runtime.PodSandboxAttributes{Id: id}}, nil
	}
	h.serve(t)
	ctx := t.Context()
	list, err := h.ListContainerStats(ctx, &runtime.ListContainerStatsRequest{})
	if err != nil || len(list.GetStats()) != 1 || list.GetStats()[0].GetAttributes().GetId() != testID("c1") {
		t.Errorf("list %v, %v", list, err)
	}
	if n := strings.Count(h.log.String(), "cgroup is broken"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, h.log.String())
	}
	_, err = h.ListContainerStats(ctx, &runtime.ListContainerStatsRequest{Filter: &runtime.ContainerStatsFilter{Id: "c3"}})
	wantCode(t, err, codes.Unknown, "cgroup is broken")
	one, err := h.ContainerStats(ctx, &runtime.ContainerStatsRequest{ContainerId: "c2"})
	if err != nil || one.GetStats().GetAttributes().GetId() != testID("c2") {
		t.Errorf("exited: %v, %v", one, err)
	}
	_, err = h.ContainerStats(ctx, &runtime.ContainerStatsRequest{ContainerId: "zz"})
	wantCode(t, err, codes.NotFound, "zz")

	pods, err := h.ListPodSandboxStats(ctx, &runtime.ListPodSandboxStatsRequest{})
	if err != nil || len(pods.GetStats()) != 1 || pods.GetStats()[0].GetAttributes().GetId() != testID("aa") {
		t.Errorf("pods %v, %v", pods, err)
	}
	pod, err := h.PodSandboxStats(ctx, &runtime.PodSandboxStatsRequest{PodSandboxId: "bb"})
	if err != nil || pod.GetStats().GetAttributes().GetId() != testID("bb") {
		t.Errorf("pod %v, %v", pod, err)
	}
	_, err = h.PodSandboxStats(ctx, &runtime.PodSandboxStatsRequest{PodSandboxId: "zz"})
	wantCode(t, err, codes.NotFound, "zz")
}
