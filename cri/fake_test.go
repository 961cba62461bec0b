package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeSandboxes keeps pods and containers in slices; a nil function fails.
type fakeSandboxes struct {
	pods       []sandbox.Pod
	containers []sandbox.Container

	runPod     func(sandbox.RunPodRequest) (string, error)
	stopPod    func(string) error
	removePod  func(string) error
	updatePod  func(string, *runtime.LinuxContainerResources, *runtime.LinuxContainerResources) error
	create     func(sandbox.CreateContainerRequest) (string, error)
	start      func(string) error
	stop       func(context.Context, string, time.Duration) error
	remove     func(string) error
	update     func(string, *runtime.LinuxContainerResources) error
	reopen     func(string) error
	execSync   func(string, []string, time.Duration) (sandbox.ExecResult, error)
	exec       func(context.Context, sandbox.ExecRequest) (int, error)
	attach     func(context.Context, string, sandbox.IO) error
	forward    func(context.Context, string, uint16, io.ReadWriteCloser) error
	subscribe  func() (<-chan sandbox.Event, func())
	ctrStats   func(string) (*runtime.ContainerStats, error)
	podStatsFn func(string) (*runtime.PodSandboxStats, error)
	detail     func(string) (*sandbox.ContainerDetail, error)
	podDetail  sandbox.PodDetail

	checkpoint    func(id, location string, timeout time.Duration) error
	checkpointPod func(id, output string, ids []string) error
	restorePod    func(sandbox.RestorePodRequest) (string, map[string]string, error)
}

func (f *fakeSandboxes) CheckpointContainer(_ context.Context, id, location string, timeout time.Duration) error {
	if f.checkpoint == nil {
		return errUnexpected
	}
	return f.checkpoint(id, location, timeout)
}

func (f *fakeSandboxes) RestorePod(_ context.Context, req sandbox.RestorePodRequest) (string, map[string]string, error) {
	if f.restorePod == nil {
		return "", nil, errUnexpected
	}
	return f.restorePod(req)
}

func (f *fakeSandboxes) CheckpointPod(_ context.Context, id, output string, ids []string) error {
	if f.checkpointPod == nil {
		return errUnexpected
	}
	return f.checkpointPod(id, output, ids)
}

var errUnexpected = errors.New("unexpected call")

func (f *fakeSandboxes) RunPod(_ context.Context, req sandbox.RunPodRequest) (string, error) {
	if f.runPod == nil {
		return "", errUnexpected
	}
	return f.runPod(req)
}

func (f *fakeSandboxes) StopPod(_ context.Context, id string) error {
	if f.stopPod == nil {
		return errUnexpected
	}
	return f.stopPod(id)
}

func (f *fakeSandboxes) RemovePod(_ context.Context, id string) error {
	if f.removePod == nil {
		return errUnexpected
	}
	return f.removePod(id)
}

func (f *fakeSandboxes) Pod(id string) (sandbox.Pod, error) {
	return find(f.pods, podID, "pod", id)
}

func (f *fakeSandboxes) Pods() []sandbox.Pod { return f.pods }

func (f *fakeSandboxes) UpdatePod(_ context.Context, id string, overhead, res *runtime.LinuxContainerResources) error {
	if f.updatePod == nil {
		return errUnexpected
	}
	return f.updatePod(id, overhead, res)
}

func (f *fakeSandboxes) CreateContainer(_ context.Context, req sandbox.CreateContainerRequest) (string, error) {
	if f.create == nil {
		return "", errUnexpected
	}
	return f.create(req)
}

func (f *fakeSandboxes) StartContainer(_ context.Context, id string, _ *sandbox.IO) (*sandbox.Attachment, error) {
	if f.start == nil {
		return nil, errUnexpected
	}
	return nil, f.start(id)
}

func (f *fakeSandboxes) StopContainer(ctx context.Context, id string, timeout time.Duration) error {
	if f.stop == nil {
		return errUnexpected
	}
	return f.stop(ctx, id, timeout)
}

func (f *fakeSandboxes) RemoveContainer(_ context.Context, id string) error {
	if f.remove == nil {
		return errUnexpected
	}
	return f.remove(id)
}

func (f *fakeSandboxes) Container(id string) (sandbox.Container, error) {
	return find(f.containers, containerID, "container", id)
}

func (f *fakeSandboxes) Containers() []sandbox.Container { return f.containers }

func (f *fakeSandboxes) PodContainers(podID string) (list []sandbox.Container) {
	for _, c := range f.containers {
		if c.PodID == podID {
			list = append(list, c)
		}
	}
	return list
}

func (f *fakeSandboxes) UpdateContainer(_ context.Context, id string, res *runtime.LinuxContainerResources) error {
	if f.update == nil {
		return errUnexpected
	}
	return f.update(id, res)
}

func (f *fakeSandboxes) ReopenLog(_ context.Context, id string) error {
	if f.reopen == nil {
		return errUnexpected
	}
	return f.reopen(id)
}

func (f *fakeSandboxes) ExecSync(_ context.Context, id string, cmd []string, timeout time.Duration) (sandbox.ExecResult, error) {
	if f.execSync == nil {
		return sandbox.ExecResult{}, errUnexpected
	}
	return f.execSync(id, cmd, timeout)
}

func (f *fakeSandboxes) Exec(ctx context.Context, req sandbox.ExecRequest) (int, error) {
	if f.exec == nil {
		return 0, errUnexpected
	}
	return f.exec(ctx, req)
}

func (f *fakeSandboxes) Attach(ctx context.Context, id string, streams sandbox.IO) error {
	if f.attach == nil {
		return errUnexpected
	}
	return f.attach(ctx, id, streams)
}

func (f *fakeSandboxes) PortForward(ctx context.Context, id string, port uint16, stream io.ReadWriteCloser) error {
	if f.forward == nil {
		return errUnexpected
	}
	return f.forward(ctx, id, port, stream)
}

func (f *fakeSandboxes) Subscribe() (<-chan sandbox.Event, func()) { return f.subscribe() }

func (f *fakeSandboxes) ContainerStats(_ context.Context, id string) (*runtime.ContainerStats, error) {
	if f.ctrStats == nil {
		return nil, errUnexpected
	}
	return f.ctrStats(id)
}

func (f *fakeSandboxes) ReadAhead(context.Context, []string, []string) {}

func (f *fakeSandboxes) PodStats(_ context.Context, id string) (*runtime.PodSandboxStats, error) {
	if f.podStatsFn == nil {
		return nil, errUnexpected
	}
	return f.podStatsFn(id)
}

func (f *fakeSandboxes) ContainerDetail(_ context.Context, id string) (*sandbox.ContainerDetail, error) {
	if f.detail == nil {
		return nil, errUnexpected
	}
	return f.detail(id)
}

func (f *fakeSandboxes) PodDetail(context.Context, string) (*sandbox.PodDetail, error) {
	return &f.podDetail, nil
}

// find is how the sandbox package finds by unique prefix.
func find[T any](items []T, idOf func(*T) string, what, prefix string) (T, error) {
	var none T
	id, ok := completeID(items, idOf, prefix)
	if !ok {
		return none, fmt.Errorf("%s %s: %w", what, prefix, errdefs.ErrNotFound)
	}
	for i := range items {
		if idOf(&items[i]) == id {
			return items[i], nil
		}
	}
	return none, errUnexpected
}

type fakeImages struct {
	images []imageservice.Image
	pull   func(context.Context, imageservice.PullRequest) (imageservice.PullResult, error)
	remove func(string) error
	usage  imageservice.FilesystemUsage
}

func (f *fakeImages) Pull(ctx context.Context, req imageservice.PullRequest) (imageservice.PullResult, error) {
	return f.pull(ctx, req)
}

func (f *fakeImages) Image(_ context.Context, ref string) (imageservice.Image, error) {
	if ref == "Bad Ref" {
		return imageservice.Image{}, fmt.Errorf("reference %q: %w", ref, errdefs.ErrInvalidArgument)
	}
	for _, img := range f.images {
		for _, name := range append(append([]string{}, img.Tags...), img.Digests...) {
			if name == ref {
				return img, nil
			}
		}
		if strings.HasPrefix(img.ID, ref) {
			return img, nil
		}
	}
	return imageservice.Image{}, fmt.Errorf("image %s: %w", ref, errdefs.ErrNotFound)
}

func (f *fakeImages) Images(context.Context) ([]imageservice.Image, error) { return f.images, nil }

func (f *fakeImages) Remove(_ context.Context, ref string) error { return f.remove(ref) }

func (f *fakeImages) FilesystemUsage(context.Context) (imageservice.FilesystemUsage, error) {
	return f.usage, nil
}

type fakeNetwork struct {
	status error
	cidrs  []netip.Prefix
}

func (f *fakeNetwork) Status(context.Context) error { return f.status }

func (f *fakeNetwork) SetPodCIDR(_ context.Context, cidrs []netip.Prefix) error {
	f.cidrs = cidrs
	return nil
}

// harness is a server behind a real gRPC connection on a Unix socket.
type harness struct {
	sandboxes *fakeSandboxes
	images    *fakeImages
	network   *fakeNetwork
	config    Config
	ready     error
	log       logBuffer

	runtime.RuntimeServiceClient
	image runtime.ImageServiceClient
}

// logBuffer may be written and read at once.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newHarness() *harness {
	return &harness{
		sandboxes: &fakeSandboxes{}, images: &fakeImages{}, network: &fakeNetwork{},
		config: Config{Version: "1.2.3", RootDir: "/root-dir", StateDir: "/state-dir"},
	}
}

// serve starts the server and connects to it.
func (h *harness) serve(t *testing.T) *harness {
	t.Helper()
	logger := logrus.New()
	logger.SetOutput(&h.log)
	logger.SetFormatter(&logrus.TextFormatter{DisableColors: true})
	log := logrus.NewEntry(logger)
	server, err := New(h.config, Deps{
		Sandboxes: h.sandboxes, Images: h.images, Network: h.network, Log: log,
		Ready: func(context.Context) error { return h.ready },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(ServerOptions(log)...)
	server.Register(g)
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	client, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	h.RuntimeServiceClient = runtime.NewRuntimeServiceClient(client)
	h.image = runtime.NewImageServiceClient(client)
	return h
}

// testID makes a full ID of a prefix.
func testID(prefix string) string {
	return prefix + strings.Repeat("0", 64-len(prefix))
}

// testPod is a ready pod made over CRI.
func testPod(prefix string) sandbox.Pod {
	return sandbox.Pod{
		ID: testID(prefix), Owner: sandbox.OwnerCRI, State: sandbox.PodReady, CreatedAt: time.Unix(100, 5),
		Config: podConfig("pod-" + prefix),
	}
}

func podConfig(name string) *runtime.PodSandboxConfig {
	return &runtime.PodSandboxConfig{
		Metadata:    &runtime.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-" + name, Attempt: 2},
		Labels:      map[string]string{"app": name, "tier": "web"},
		Annotations: map[string]string{"note": "a\x01b"},
	}
}

// testContainer is a running container of a pod made over CRI.
func testContainer(prefix, pod string) sandbox.Container {
	return sandbox.Container{
		ID: testID(prefix), PodID: testID(pod), Owner: sandbox.OwnerCRI, State: sandbox.ContainerRunning,
		Config:    containerConfig("ctr-" + prefix),
		ImageID:   "sha256:1111",
		ImageRef:  "busybox",
		CreatedAt: time.Unix(200, 1), StartedAt: time.Unix(201, 2),
	}
}

func containerConfig(name string) *runtime.ContainerConfig {
	return &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: name, Attempt: 1},
		Image:    &runtime.ImageSpec{Image: "busybox"},
		Labels:   map[string]string{"app": name},
	}
}
