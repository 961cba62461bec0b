package cri

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc/codes"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// checkpoints is a harness with a pod "aa" and its running container "c1".
func checkpoints(t *testing.T) *harness {
	h := newHarness()
	h.sandboxes.pods = []sandbox.Pod{testPod("aa")}
	h.sandboxes.containers = []sandbox.Container{testContainer("c1", "aa")}
	return h.serve(t)
}

var errNoCRIU = fmt.Errorf("checkpoint: the program criu is not installed: %w", errdefs.ErrNotImplemented)

// kubelet and crictl tell a host that cannot by the code.
func TestCheckpointsWithoutCRIU(t *testing.T) {
	h := checkpoints(t)
	h.sandboxes.checkpoint = func(string, string, time.Duration) error { return errNoCRIU }
	h.sandboxes.checkpointPod = func(string, string, []string) error { return errNoCRIU }
	_, err := h.CheckpointContainer(t.Context(), &runtime.CheckpointContainerRequest{ContainerId: "c1", Location: "/x"})
	wantCode(t, err, codes.Unimplemented, "criu is not installed")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = h.CheckpointPod(ctx, &runtime.CheckpointPodRequest{PodSandboxId: "aa", OutputPath: "/x", ContainerIds: []string{"c1"}})
	wantCode(t, err, codes.Unimplemented, "criu is not installed")
}

func TestCheckpointContainerFields(t *testing.T) {
	h := checkpoints(t)
	h.sandboxes.checkpoint = func(id, location string, timeout time.Duration) error {
		if id != testID("c1") || location != "/x" || timeout != 3*time.Second {
			t.Errorf("got %s, %s, %s", id, location, timeout)
		}
		return nil
	}
	for _, test := range []struct {
		req  *runtime.CheckpointContainerRequest
		code codes.Code
		text string
	}{
		{&runtime.CheckpointContainerRequest{ContainerId: "c1", Location: "/x", Timeout: 3}, codes.OK, ""},
		{&runtime.CheckpointContainerRequest{Location: "/x"}, codes.InvalidArgument, "container_id"},
		{&runtime.CheckpointContainerRequest{ContainerId: "c9", Location: "/x"}, codes.NotFound, "c9"},
		{&runtime.CheckpointContainerRequest{ContainerId: "c1"}, codes.InvalidArgument, "location"},
		{&runtime.CheckpointContainerRequest{ContainerId: "c1", Location: "x"}, codes.InvalidArgument, "location"},
		{&runtime.CheckpointContainerRequest{ContainerId: "c1", Location: "/x", Timeout: -1}, codes.InvalidArgument, "timeout"},
		{&runtime.CheckpointContainerRequest{ContainerId: "c1", Location: "/x", Timeout: 1 << 60}, codes.InvalidArgument, "timeout"},
	} {
		_, err := h.CheckpointContainer(t.Context(), test.req)
		wantCode(t, err, test.code, test.text)
	}
}

func TestCheckpointPodFields(t *testing.T) {
	h := checkpoints(t)
	h.sandboxes.checkpointPod = func(string, string, []string) error { return nil }
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	good := func(change func(*runtime.CheckpointPodRequest)) *runtime.CheckpointPodRequest {
		req := &runtime.CheckpointPodRequest{PodSandboxId: "aa", OutputPath: "/x", ContainerIds: []string{"c1"}}
		change(req)
		return req
	}
	for _, test := range []struct {
		change func(*runtime.CheckpointPodRequest)
		code   codes.Code
		text   string
	}{
		{func(*runtime.CheckpointPodRequest) {}, codes.OK, ""},
		{func(r *runtime.CheckpointPodRequest) { r.PodSandboxId = "" }, codes.InvalidArgument, "pod_sandbox_id"},
		{func(r *runtime.CheckpointPodRequest) { r.PodSandboxId = "zz" }, codes.NotFound, "zz"},
		{func(r *runtime.CheckpointPodRequest) { r.OutputPath = "" }, codes.InvalidArgument, "output_path"},
		{func(r *runtime.CheckpointPodRequest) { r.OutputPath = "x" }, codes.InvalidArgument, "output_path"},
		{func(r *runtime.CheckpointPodRequest) { r.ContainerIds = nil }, codes.InvalidArgument, "container_ids"},
		{func(r *runtime.CheckpointPodRequest) { r.ContainerIds = []string{""} }, codes.InvalidArgument, "container_ids[0]"},
		{func(r *runtime.CheckpointPodRequest) { r.ContainerIds = []string{"c1", "c1"} }, codes.InvalidArgument, "container_ids[1]"},
		{func(r *runtime.CheckpointPodRequest) { r.Options = map[string]string{"leave": "x"} }, codes.InvalidArgument, "leave"},
	} {
		_, err := h.CheckpointPod(ctx, good(test.change))
		wantCode(t, err, test.code, test.text)
	}
	_, err := h.CheckpointPod(t.Context(), good(func(*runtime.CheckpointPodRequest) {}))
	wantCode(t, err, codes.InvalidArgument, "deadline")
}

func TestRestorePodFields(t *testing.T) {
	h := checkpoints(t)
	h.sandboxes.restorePod = func(req sandbox.RestorePodRequest) (string, map[string]string, error) {
		if req.Path != "/x" || req.Owner != sandbox.OwnerCRI || len(req.Containers) != 2 {
			t.Errorf("got %+v", req)
		}
		return "pod", map[string]string{"a": "1", "b": "2"}, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	good := func(change func(*runtime.RestorePodRequest)) *runtime.RestorePodRequest {
		req := &runtime.RestorePodRequest{
			CheckpointPath: "/x", Config: podConfig("web"),
			ContainerConfigs: []*runtime.ContainerConfig{containerConfig("a"), containerConfig("b")},
		}
		change(req)
		return req
	}
	resp, err := h.RestorePod(ctx, good(func(*runtime.RestorePodRequest) {}))
	if err != nil || resp.PodSandboxId != "pod" || len(resp.RestoredContainers) != 2 {
		t.Fatalf("got %v, %v", resp, err)
	}
	if last := resp.RestoredContainers[1]; last.Name != "b" || last.ContainerId != "2" {
		t.Errorf("got %v", resp)
	}
	for _, test := range []struct {
		change func(*runtime.RestorePodRequest)
		text   string
	}{
		{func(r *runtime.RestorePodRequest) { r.CheckpointPath = "" }, "checkpoint_path"},
		{func(r *runtime.RestorePodRequest) { r.CheckpointPath = "x" }, "checkpoint_path"},
		{func(r *runtime.RestorePodRequest) { r.Config = nil }, "config"},
		{func(r *runtime.RestorePodRequest) { r.Config.Metadata.Uid = "" }, "config.metadata.uid"},
		{func(r *runtime.RestorePodRequest) { r.RuntimeHandler = "none" }, "runtime_handler"},
		{func(r *runtime.RestorePodRequest) { r.Options = map[string]string{"x": ""} }, `"x"`},
		{func(r *runtime.RestorePodRequest) { r.ContainerConfigs = nil }, "container_configs"},
		{func(r *runtime.RestorePodRequest) { r.ContainerConfigs[1].Image = nil }, "container_configs[1].image.image: is missing"},
		{func(r *runtime.RestorePodRequest) { r.ContainerConfigs[1].Image.Image = "/c.tar" }, "is a path"},
		{func(r *runtime.RestorePodRequest) { r.ContainerConfigs[1].Metadata.Name = "a" }, "container_configs[1].metadata.name"},
	} {
		_, err := h.RestorePod(ctx, good(test.change))
		wantCode(t, err, codes.InvalidArgument, test.text)
	}
	_, err = h.RestorePod(t.Context(), good(func(*runtime.RestorePodRequest) {}))
	wantCode(t, err, codes.InvalidArgument, "deadline")
	h.sandboxes.restorePod = func(sandbox.RestorePodRequest) (string, map[string]string, error) { return "", nil, errNoCRIU }
	_, err = h.RestorePod(ctx, good(func(*runtime.RestorePodRequest) {}))
	wantCode(t, err, codes.Unimplemented, "criu is not installed")
}
