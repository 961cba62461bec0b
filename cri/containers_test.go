package cri

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestCreateContainer(t *testing.T) {
	h := newHarness()
	h.sandboxes.pods = []sandbox.Pod{testPod("aa")}
	var got sandbox.CreateContainerRequest
	h.sandboxes.create = func(req sandbox.CreateContainerRequest) (string, error) {
		got = req
		return "id", nil
	}
	h.serve(t)
	resp, err := h.CreateContainer(t.Context(), &runtime.CreateContainerRequest{PodSandboxId: "aa", Config: containerConfig("c")})
	if err != nil || resp.GetContainerId() != "id" {
		t.Fatal(resp, err)
	}
	if got.PodID != testID("aa") || got.Config.GetMetadata().GetName() != "c" || got.Keep {
		t.Errorf("got %+v", got)
	}
}

func TestCreateContainerRefuses(t *testing.T) {
	h := newHarness()
	foreign := testPod("ff")
	foreign.Owner = sandbox.OwnerNodectl
	h.sandboxes.pods = []sandbox.Pod{testPod("aa"), foreign}
	h.serve(t)
	change := func(f func(*runtime.ContainerConfig)) *runtime.CreateContainerRequest {
		config := containerConfig("c")
		f(config)
		return &runtime.CreateContainerRequest{PodSandboxId: "aa", Config: config}
	}
	security := func(s *runtime.LinuxContainerSecurityContext) *runtime.CreateContainerRequest {
		return change(func(c *runtime.ContainerConfig) { c.Linux = &runtime.LinuxContainerConfig{SecurityContext: s} })
	}
	for field, req := range map[string]*runtime.CreateContainerRequest{
		"config: ":                        {PodSandboxId: "aa"},
		"config.metadata: ":               change(func(c *runtime.ContainerConfig) { c.Metadata = nil }),
		"config.metadata.name":            change(func(c *runtime.ContainerConfig) { c.Metadata.Name = "" }),
		"config.image.image":              change(func(c *runtime.ContainerConfig) { c.Image = nil }),
		"config.mounts[0].container_path": change(func(c *runtime.ContainerConfig) { c.Mounts = []*runtime.Mount{{HostPath: "/x"}} }),
		"run_as_group":                    security(&runtime.LinuxContainerSecurityContext{RunAsGroup: &runtime.Int64Value{}}),
		"run_as_username":                 security(&runtime.LinuxContainerSecurityContext{RunAsUser: &runtime.Int64Value{}, RunAsUsername: "u"}),
		"pod_sandbox_id":                  {Config: containerConfig("c")},
	} {
		_, err := h.CreateContainer(t.Context(), req)
		wantCode(t, err, codes.InvalidArgument, field)
	}
	for _, id := range []string{"bb", "ff"} {
		_, err := h.CreateContainer(t.Context(), &runtime.CreateContainerRequest{PodSandboxId: id, Config: containerConfig("c")})
		wantCode(t, err, codes.NotFound, id)
	}
}

func TestContainerLife(t *testing.T) {
	h := newHarness()
	foreign := testContainer("ff", "aa")
	foreign.Owner = sandbox.OwnerNodectl
	h.sandboxes.containers = []sandbox.Container{testContainer("c1", "aa"), foreign}
	var calls []string
	note := func(verb, id string) error {
		calls = append(calls, verb+" "+id[:2])
		return nil
	}
	h.sandboxes.start = func(id string) error { return note("start", id) }
	h.sandboxes.remove = func(id string) error { return note("remove", id) }
	h.sandboxes.reopen = func(id string) error { return note("reopen", id) }
	var timeout time.Duration
	h.sandboxes.stop = func(_ context.Context, id string, d time.Duration) error {
		timeout = d
		return note("stop", id)
	}
	h.serve(t)
	ctx := t.Context()
	start := func(id string) error {
		_, err := h.StartContainer(ctx, &runtime.StartContainerRequest{ContainerId: id})
		return err
	}
	stop := func(id string, seconds int64) error {
		_, err := h.StopContainer(ctx, &runtime.StopContainerRequest{ContainerId: id, Timeout: seconds})
		return err
	}
	remove := func(id string) error {
		_, err := h.RemoveContainer(ctx, &runtime.RemoveContainerRequest{ContainerId: id})
		return err
	}
	reopen := func(id string) error {
		_, err := h.ReopenContainerLog(ctx, &runtime.ReopenContainerLogRequest{ContainerId: id})
		return err
	}
	for _, id := range []string{"c1", "unknown", "ff"} {
		if err := stop(id, 7); err != nil {
			t.Error(err)
		}
		if err := remove(id); err != nil {
			t.Error(err)
		}
	}
	if timeout != 7*time.Second {
		t.Errorf("timeout %v", timeout)
	}
	if err := stop("c1", math.MaxInt64); err != nil || timeout < time.Hour {
		t.Errorf("timeout %v, %v", timeout, err)
	}
	if err := start("c1"); err != nil {
		t.Error(err)
	}
	if err := reopen("c1"); err != nil {
		t.Error(err)
	}
	want := []string{"stop c1", "remove c1", "stop c1", "start c1", "reopen c1"}
	if !slices.Equal(calls, want) {
		t.Errorf("calls %v, want %v", calls, want)
	}
	wantCode(t, stop("c1", -1), codes.InvalidArgument, "timeout")
	wantCode(t, stop("", 1), codes.InvalidArgument, "container_id")
	wantCode(t, remove(""), codes.InvalidArgument, "container_id")
	wantCode(t, start("ff"), codes.NotFound, "ff")
	wantCode(t, reopen("ff"), codes.NotFound, "ff")

	exited := testContainer("c1", "aa")
	exited.State = sandbox.ContainerExited
	h.sandboxes.containers = []sandbox.Container{exited}
	wantCode(t, reopen("c1"), codes.FailedPrecondition, "exited")
}

func TestListContainers(t *testing.T) {
	h := newHarness()
	exited, foreign, paused := testContainer("c2", "aa"), testContainer("ff", "aa"), testContainer("d1", "bb")
	exited.State, foreign.Owner, paused.State = sandbox.ContainerExited, sandbox.OwnerNodectl, sandbox.ContainerPaused
	h.sandboxes.containers = []sandbox.Container{testContainer("c1", "aa"), exited, foreign, paused}
	h.serve(t)
	running := &runtime.ContainerStateValue{State: runtime.ContainerState_CONTAINER_RUNNING}
	for name, test := range map[string]struct {
		filter *runtime.ContainerFilter
		want   []string
	}{
		"all":        {nil, []string{"c1", "c2", "d1"}},
		"running":    {&runtime.ContainerFilter{State: running}, []string{"c1", "d1"}},
		"pod":        {&runtime.ContainerFilter{PodSandboxId: "a"}, []string{"c1", "c2"}},
		"pod and id": {&runtime.ContainerFilter{PodSandboxId: "b", Id: "d"}, []string{"d1"}},
		"other pod":  {&runtime.ContainerFilter{PodSandboxId: "aa", Id: "d1"}, nil},
		"ambiguous":  {&runtime.ContainerFilter{Id: "c"}, nil},
		"label":      {&runtime.ContainerFilter{LabelSelector: map[string]string{"app": "ctr-c2"}}, []string{"c2"}},
		"no label":   {&runtime.ContainerFilter{LabelSelector: map[string]string{"none": ""}}, nil},
	} {
		resp, err := h.ListContainers(t.Context(), &runtime.ListContainersRequest{Filter: test.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, item := range resp.GetContainers() {
			got = append(got, item.GetId()[:2])
			if item.GetImageId() != "sha256:1111" {
				t.Errorf("image_id %q", item.GetImageId())
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestContainerStatus(t *testing.T) {
	h := newHarness()
	ctr := testContainer("c1", "aa")
	ctr.State, ctr.FinishedAt = sandbox.ContainerExited, time.Unix(202, 3)
	ctr.ExitCode, ctr.Reason, ctr.Message = 137, "OOMKilled", "out of memory"
	ctr.LogPath, ctr.StopSignal = "/var/log/pods/x/0.log", "SIGRTMIN+3"
	ctr.User = &runtime.ContainerUser{Linux: &runtime.LinuxContainerUser{Uid: 1, Gid: 2, SupplementalGroups: []int64{2, 3}}}
	ctr.Mounts = []*runtime.Mount{
		{ContainerPath: "/m", Image: &runtime.ImageSpec{Image: "i", ImageRef: "sha256:22"}},
		{ContainerPath: "/gone", Image: &runtime.ImageSpec{Image: "j", ImageRef: "sha256:44"}},
	}
	ctr.Config.Linux = &runtime.LinuxContainerConfig{Resources: &runtime.LinuxContainerResources{CpuShares: 5}}
	ctr.Config.Image = &runtime.ImageSpec{Image: "sha256:1111", UserSpecifiedImage: "busybox"}
	ctr.PID, ctr.Args = 99, []string{"sleep", "1"}
	h.sandboxes.containers = []sandbox.Container{ctr}
	h.images.images = []imageservice.Image{{
		ID:      "sha256:1111",
		Tags:    []string{"mirror.example:5000/busybox:1", "docker.io/library/busybox:latest"},
		Digests: []string{"mirror.example:5000/busybox@sha256:99", "docker.io/library/busybox@sha256:99"},
	}, {ID: "sha256:22", Digests: []string{"example/i@sha256:33"}}}
	h.serve(t)
	resp, err := h.ContainerStatus(t.Context(), &runtime.ContainerStatusRequest{ContainerId: "c1", Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	want := &runtime.ContainerStatus{
		Id: testID("c1"), Metadata: ctr.Config.Metadata, State: runtime.ContainerState_CONTAINER_EXITED,
		CreatedAt: 200_000_000_001, StartedAt: 201_000_000_002, FinishedAt: 202_000_000_003,
		ExitCode: 137, Reason: "OOMKilled", Message: "out of memory",
		Image:    &runtime.ImageSpec{Image: "docker.io/library/busybox:latest", UserSpecifiedImage: "busybox"},
		ImageRef: "docker.io/library/busybox@sha256:99",
		ImageId:  "sha256:1111",
		Labels:   ctr.Config.Labels,
		Mounts: []*runtime.Mount{
			{ContainerPath: "/m", Image: &runtime.ImageSpec{Image: "i", ImageRef: "example/i@sha256:33"}}, ctr.Mounts[1],
		},
		LogPath:    "/var/log/pods/x/0.log",
		Resources:  &runtime.ContainerResources{Linux: &runtime.LinuxContainerResources{CpuShares: 5}},
		User:       ctr.User,
		StopSignal: runtime.Signal_SIGNAL_SIGRTMINPLUS3,
	}
	if diff := cmp.Diff(want, resp.GetStatus(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	var info struct {
		PID       int
		SandboxID string
		Args      []string
	}
	if err := json.Unmarshal([]byte(resp.GetInfo()["info"]), &info); err != nil {
		t.Fatal(err)
	}
	if info.PID != 99 || info.SandboxID != testID("aa") || len(info.Args) != 2 {
		t.Errorf("info %+v", info)
	}

	// The image is gone, and nothing but the ID is known of it.
	h.images.images = nil
	ctr.Config.Image.UserSpecifiedImage, ctr.ImageRef = "", ""
	h.sandboxes.containers = []sandbox.Container{ctr}
	resp, err = h.ContainerStatus(t.Context(), &runtime.ContainerStatusRequest{ContainerId: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetStatus(); got.GetImage().GetImage() != "sha256:1111" || got.GetImageRef() != "sha256:1111" || len(resp.GetInfo()) != 0 {
		t.Errorf("got %v", resp)
	}
	_, err = h.ContainerStatus(t.Context(), &runtime.ContainerStatusRequest{ContainerId: "zz"})
	wantCode(t, err, codes.NotFound, "zz")
	_, err = h.ContainerStatus(t.Context(), &runtime.ContainerStatusRequest{})
	wantCode(t, err, codes.InvalidArgument, "container_id")
}

func TestStopSignals(t *testing.T) {
	for name, want := range map[string]runtime.Signal{
		"":             runtime.Signal_SIGNAL_RUNTIME_DEFAULT,
		"SIGTERM":      runtime.Signal_SIGNAL_SIGTERM,
		"SIGUSR1":      runtime.Signal_SIGNAL_SIGUSR1,
		"SIGRTMIN":     runtime.Signal_SIGNAL_SIGRTMIN,
		"SIGRTMIN+15":  runtime.Signal_SIGNAL_SIGRTMINPLUS15,
		"SIGRTMAX-14":  runtime.Signal_SIGNAL_SIGRTMAXMINUS14,
		"SIGRTMAX":     runtime.Signal_SIGNAL_SIGRTMAX,
		"RT_NO_SIGNAL": runtime.Signal_SIGNAL_RUNTIME_DEFAULT,
	} {
		if got := stopSignal(name); got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestUpdateContainerResources(t *testing.T) {
	h := newHarness()
	h.sandboxes.containers = []sandbox.Container{testContainer("c1", "aa")}
	var quota int64
	h.sandboxes.update = func(_ string, res *runtime.LinuxContainerResources) error {
		quota = res.GetCpuQuota()
		return nil
	}
	h.serve(t)
	_, err := h.UpdateContainerResources(t.Context(), &runtime.UpdateContainerResourcesRequest{
		ContainerId: "c1", Linux: &runtime.LinuxContainerResources{CpuQuota: 9},
	})
	if err != nil || quota != 9 {
		t.Error(quota, err)
	}
	_, err = h.UpdateContainerResources(t.Context(), &runtime.UpdateContainerResourcesRequest{ContainerId: "c1"})
	wantCode(t, err, codes.InvalidArgument, "linux")
}

func TestExecSync(t *testing.T) {
	h := newHarness()
	h.sandboxes.containers = []sandbox.Container{testContainer("c1", "aa")}
	var timeout time.Duration
	h.sandboxes.execSync = func(_ string, cmd []string, d time.Duration) (sandbox.ExecResult, error) {
		timeout = d
		if cmd[0] == "slow" {
			return sandbox.ExecResult{}, fmt.Errorf("execute in container c1: killed after %v: %w", d, context.DeadlineExceeded)
		}
		if cmd[0] == "big" {
			return sandbox.ExecResult{Stdout: bytes.Repeat([]byte("o"), 16<<20), Stderr: bytes.Repeat([]byte("e"), 16<<20)}, nil
		}
		return sandbox.ExecResult{Stdout: []byte("out"), Stderr: []byte("err"), ExitCode: 3}, nil
	}
	h.serve(t)
	call := func(cmd ...string) (*runtime.ExecSyncResponse, error) {
		return h.ExecSync(t.Context(), &runtime.ExecSyncRequest{ContainerId: "c1", Cmd: cmd, Timeout: 4})
	}
	resp, err := call("x")
	if err != nil || string(resp.GetStdout()) != "out" || string(resp.GetStderr()) != "err" || resp.GetExitCode() != 3 || timeout != 4*time.Second {
		t.Error(resp, err, timeout)
	}
	_, err = call("slow")
	wantCode(t, err, codes.DeadlineExceeded, "killed after")
	_, err = call()
	wantCode(t, err, codes.InvalidArgument, "cmd")
	// Over a connection with kubelet's limit.
	resp, err = call("big")
	if err != nil || len(resp.GetStdout()) < 7<<20 || len(resp.GetStderr()) < 7<<20 {
		t.Errorf("%d and %d bytes, %v", len(resp.GetStdout()), len(resp.GetStderr()), err)
	}
	h.sandboxes.containers[0].State = sandbox.ContainerCreated
	_, err = call("x")
	wantCode(t, err, codes.FailedPrecondition, "created")
}

func TestCutOutput(t *testing.T) {
	for _, test := range []struct{ out, err, wantOut, wantErr int }{
		{1, 2, 1, 2},
		{maxExecOutput, 0, maxExecOutput, 0},
		{maxExecOutput, 10, maxExecOutput - 10, 10},
		{10, maxExecOutput, 10, maxExecOutput - 10},
		{maxExecOutput, maxExecOutput, maxExecOutput / 2, maxExecOutput / 2},
	} {
		out, err := cutOutput(make([]byte, test.out), make([]byte, test.err))
		if len(out) != test.wantOut || len(err) != test.wantErr {
			t.Errorf("%+v: got %d, %d", test, len(out), len(err))
		}
	}
}

func TestStreamRPCsRefuse(t *testing.T) {
	h := newHarness()
	exited := testContainer("c2", "aa")
	exited.State = sandbox.ContainerExited
	stopped := testPod("bb")
	stopped.State = sandbox.PodNotReady
	h.sandboxes.containers = []sandbox.Container{testContainer("c1", "aa"), exited}
	h.sandboxes.pods = []sandbox.Pod{testPod("aa"), stopped}
	h.serve(t)
	exec := func(req *runtime.ExecRequest) error {
		_, err := h.Exec(t.Context(), req)
		return err
	}
	wantCode(t, exec(&runtime.ExecRequest{ContainerId: "c1", Stdout: true}), codes.InvalidArgument, "cmd")
	wantCode(t, exec(&runtime.ExecRequest{ContainerId: "c1", Cmd: []string{"x"}}), codes.InvalidArgument, "stdin, stdout or stderr")
	wantCode(t, exec(&runtime.ExecRequest{ContainerId: "c1", Cmd: []string{"x"}, Tty: true, Stderr: true}), codes.InvalidArgument, "stderr")
	wantCode(t, exec(&runtime.ExecRequest{ContainerId: "c2", Cmd: []string{"x"}, Stdout: true}), codes.FailedPrecondition, "exited")
	wantCode(t, exec(&runtime.ExecRequest{ContainerId: "c3", Cmd: []string{"x"}, Stdout: true}), codes.NotFound, "c3")
	_, err := h.Attach(t.Context(), &runtime.AttachRequest{ContainerId: "c2", Stdout: true})
	wantCode(t, err, codes.FailedPrecondition, "exited")
	_, err = h.Attach(t.Context(), &runtime.AttachRequest{ContainerId: "c1"})
	wantCode(t, err, codes.InvalidArgument, "stdin, stdout or stderr")
	_, err = h.PortForward(t.Context(), &runtime.PortForwardRequest{PodSandboxId: "aa", Port: []int32{80, 65536}})
	wantCode(t, err, codes.InvalidArgument, "port[1]")
	_, err = h.PortForward(t.Context(), &runtime.PortForwardRequest{PodSandboxId: "bb"})
	wantCode(t, err, codes.FailedPrecondition, "notready")
	_, err = h.PortForward(t.Context(), &runtime.PortForwardRequest{PodSandboxId: "cc"})
	wantCode(t, err, codes.NotFound, "cc")
}

// kubelet tells an image volume's failure by the message's first word.
func TestCreateContainerNamesImageVolumes(t *testing.T) {
	h := newHarness()
	h.sandboxes.pods = []sandbox.Pod{testPod("aa")}
	h.sandboxes.create = func(sandbox.CreateContainerRequest) (string, error) {
		return "", fmt.Errorf("create container: %w on /data: no such path: %w", sandbox.ErrImageVolume, errdefs.ErrInvalidArgument)
	}
	h.serve(t)
	_, err := h.CreateContainer(t.Context(), &runtime.CreateContainerRequest{PodSandboxId: "aa", Config: containerConfig("c")})
	if text := status.Convert(err).Message(); text != "ImageVolumeMountFailed: create container: mount image volume on /data: no such path" {
		t.Errorf("the message is %q", text)
	}
}
