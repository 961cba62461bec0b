package nodeapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/imageservice/imageconfig"
	"github.com/nodeagent/nodeagent/imageservice/registry"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox"
	sandboxns "github.com/nodeagent/nodeagent/sandbox/namespace"
	sandboxspec "github.com/nodeagent/nodeagent/sandbox/spec"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeSandboxes keeps pods and containers in memory, and plays what they run:
// "cat", "echo WORDS", "exit CODE", "sleep", or "missing", which cannot start.
type fakeSandboxes struct {
	// devices are the names that CDIDevices gives.
	devices []string
	// failCreate, when not nil, is what CreateContainer fails with.
	failCreate error

	mu          sync.Mutex
	pods        map[string]sandbox.Pod
	containers  map[string]*fakeContainer
	subscribers map[chan sandbox.Event]bool
	// oomKilled says that the kernel killed in all that run.
	oomKilled bool
	count     int
	// starts counts those of all containers.
	starts  int
	running sync.WaitGroup
}

type fakeContainer struct {
	sandbox.Container
	ended chan struct{}
	kill  chan string
	// stopTimeout is what the last stop was given.
	stopTimeout time.Duration
}

func newFakeSandboxes() *fakeSandboxes {
	return &fakeSandboxes{
		pods: map[string]sandbox.Pod{}, containers: map[string]*fakeContainer{}, subscribers: map[chan sandbox.Event]bool{},
	}
}

func (f *fakeSandboxes) CDIDevices() ([]string, error) { return f.devices, nil }

func (f *fakeSandboxes) id(kind string) string {
	f.count++
	return fmt.Sprintf("%s%062x", kind, f.count)
}

func (f *fakeSandboxes) RunPod(_ context.Context, req sandbox.RunPodRequest) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pod := sandbox.Pod{
		ID: f.id("aa"), Owner: req.Owner, State: sandbox.PodReady, Config: req.Config, CreatedAt: time.Now(),
		Network: &network.Result{
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.88.0.9/16")}, Gateway: netip.MustParseAddr("10.88.0.1"),
		},
	}
	f.pods[pod.ID] = pod
	return pod.ID, nil
}

func (f *fakeSandboxes) StopPod(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if pod, ok := f.pods[id]; ok {
		pod.State = sandbox.PodNotReady
		f.pods[id] = pod
	}
	return nil
}

func (f *fakeSandboxes) RemovePod(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods, id)
	for _, c := range f.containers {
		if c.PodID == id {
			delete(f.containers, c.ID)
		}
	}
	return nil
}

func (f *fakeSandboxes) SetNetworks(string, *network.Membership) error { return nil }

func (f *fakeSandboxes) RevivePod(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	pod := f.pods[id]
	pod.State = sandbox.PodReady
	f.pods[id] = pod
	return nil
}

func (f *fakeSandboxes) Pod(id string) (sandbox.Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pod, ok := f.pods[id]
	if !ok {
		return pod, fmt.Errorf("pod %s: %w", id, errdefs.ErrNotFound)
	}
	return pod, nil
}

func (f *fakeSandboxes) Pods() []sandbox.Pod {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []sandbox.Pod
	for _, pod := range f.pods {
		out = append(out, pod)
	}
	return out
}

func (f *fakeSandboxes) CreateContainer(_ context.Context, req sandbox.CreateContainerRequest) (string, error) {
	if f.failCreate != nil {
		return "", f.failCreate
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	pod := f.pods[req.PodID]
	c := &fakeContainer{Container: sandbox.Container{
		ID: f.id("cc"), PodID: req.PodID, Owner: pod.Owner, State: sandbox.ContainerCreated, Config: req.Config,
		ImageID: req.Config.GetImage().GetImage(), ImageRef: req.Config.GetImage().GetImage(),
		CreatedAt: time.Unix(int64(f.count), 0), Args: append(slices.Clone(req.Config.GetCommand()), req.Config.GetArgs()...),
	}, ended: make(chan struct{}), kill: make(chan string, 16)}
	if req.Config.GetLogPath() != "" {
		c.LogPath = filepath.Join(pod.Config.GetLogDirectory(), req.Config.GetLogPath())
	}
	f.containers[c.ID] = c
	return c.ID, nil
}

func (f *fakeSandboxes) find(id string) (*fakeContainer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	return c, nil
}

func (f *fakeSandboxes) StartContainer(_ context.Context, id string, streams *sandbox.IO) (*sandbox.Attachment, error) {
	c, err := f.find(id)
	if err != nil {
		return nil, err
	}
	if c.Args[0] == "missing" {
		f.exit(c, 128)
		return nil, fmt.Errorf("start container %s: exec: %q: executable file not found in $PATH", id, c.Args[0])
	}
	f.mu.Lock()
	if c.State == sandbox.ContainerRunning {
		f.mu.Unlock()
		return nil, fmt.Errorf("start container %s: it is running: %w", id, errdefs.ErrFailedPrecondition)
	}
	if c.State == sandbox.ContainerExited {
		c.ended = make(chan struct{})
	}
	c.State, c.StartedAt, c.PID = sandbox.ContainerRunning, time.Now(), 4242
	f.starts++
	f.publish(sandbox.EventStarted, c)
	f.mu.Unlock()
	done := make(chan struct{})
	f.running.Add(1)
	go func() {
		defer f.running.Done()
		if streams == nil {
			streams = &sandbox.IO{}
		}
		code := c.play(streams)
		f.exit(c, code)
		close(done)
	}()
	return &sandbox.Attachment{Done: done}, nil
}

// play does what a container's command would.
func (c *fakeContainer) play(streams *sandbox.IO) int {
	switch c.Args[0] {
	case "echo":
		if streams.Stdout != nil {
			fmt.Fprintln(streams.Stdout, strings.Join(c.Args[1:], " "))
		}
	case "cat":
		_, _ = io.Copy(streams.Stdout, streams.Stdin)
	case "exit":
		code, _ := strconv.Atoi(c.Args[1])
		return code
	case "size":
		size := <-streams.Resize
		fmt.Fprintf(streams.Stdout, "%dx%d", size.Width, size.Height)
	case "sleep":
		return map[string]int{"SIGKILL": 137, "SIGTERM": 143}[<-c.kill]
	}
	return 0
}

func (f *fakeSandboxes) exit(c *fakeContainer, code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.State == sandbox.ContainerExited {
		return
	}
	c.State, c.ExitCode, c.FinishedAt, c.PID = sandbox.ContainerExited, code, time.Now(), 0
	close(c.ended)
	f.publish(sandbox.EventStopped, c)
}

// publish tells of a change; mu is held.
func (f *fakeSandboxes) publish(kind sandbox.EventType, c *fakeContainer) {
	now := c.Container
	for s := range f.subscribers {
		s <- sandbox.Event{Type: kind, ContainerID: c.ID, Container: &now}
	}
}

func (f *fakeSandboxes) StopContainer(ctx context.Context, id string, timeout time.Duration) error {
	c, err := f.find(id)
	if err != nil {
		return nil
	}
	f.mu.Lock()
	c.stopTimeout = timeout
	f.mu.Unlock()
	return f.KillContainer(ctx, id, "SIGTERM")
}

func (f *fakeSandboxes) RemoveContainer(_ context.Context, id string) error {
	c, err := f.find(id)
	if err != nil {
		return nil
	}
	c.kill <- "SIGKILL"
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, id)
	return nil
}

func (f *fakeSandboxes) Container(id string) (sandbox.Container, error) {
	c, err := f.find(id)
	if err != nil {
		return sandbox.Container{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return c.Container, nil
}

func (f *fakeSandboxes) Containers() []sandbox.Container {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []sandbox.Container
	for _, c := range f.containers {
		out = append(out, c.Container)
	}
	return out
}

func (f *fakeSandboxes) WaitContainer(ctx context.Context, id string) (sandbox.Container, error) {
	c, err := f.find(id)
	if err != nil {
		return sandbox.Container{}, err
	}
	f.mu.Lock()
	ended := c.ended
	f.mu.Unlock()
	select {
	case <-ended:
		f.mu.Lock()
		defer f.mu.Unlock()
		return c.Container, nil
	case <-ctx.Done():
		return sandbox.Container{}, ctx.Err()
	}
}

func (f *fakeSandboxes) KillContainer(_ context.Context, id string, signal string) error {
	c, err := f.find(id)
	if err != nil {
		return err
	}
	f.mu.Lock()
	ended, running := c.ended, c.State == sandbox.ContainerRunning || c.State == sandbox.ContainerPaused
	f.mu.Unlock()
	if !running {
		return nil
	}
	c.kill <- signal
	<-ended
	return nil
}

func (f *fakeSandboxes) Exec(ctx context.Context, req sandbox.ExecRequest) (int, error) {
	switch req.Cmd[0] {
	case "missing":
		return 0, errors.New(`exec: "missing": executable file not found in $PATH`)
	}
	if req.Started != nil {
		req.Started()
	}
	switch req.Cmd[0] {
	case "cat":
		_, _ = io.Copy(req.IO.Stdout, req.IO.Stdin)
	case "sleep":
		<-ctx.Done()
		return 0, fmt.Errorf("exec in container %s: %w", req.ContainerID, ctx.Err())
	case "env":
		fmt.Fprint(req.IO.Stderr, strings.Join(req.Env, ","), " ", req.Cwd, " ", req.User, " ", req.Privileged)
	}
	return 5, nil
}

func (f *fakeSandboxes) Attach(ctx context.Context, id string, streams sandbox.IO) error {
	c, err := f.find(id)
	if err != nil {
		return err
	}
	fmt.Fprint(streams.Stdout, "joined")
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakeSandboxes) PauseContainer(_ context.Context, id string) error {
	return f.change(id, func(c *sandbox.Container) { c.State = sandbox.ContainerPaused })
}

func (f *fakeSandboxes) ResumeContainer(_ context.Context, id string) error {
	return f.change(id, func(c *sandbox.Container) { c.State = sandbox.ContainerRunning })
}

func (f *fakeSandboxes) UpdateContainerLimits(_ context.Context, id string, res *runtime.LinuxContainerResources, _ *sandboxspec.Extra) error {
	return f.change(id, func(c *sandbox.Container) { c.Config.Linux.Resources = res })
}

func (f *fakeSandboxes) ReopenLog(_ context.Context, id string) error {
	c, err := f.find(id)
	if err != nil {
		return err
	}
	return os.WriteFile(c.LogPath, nil, 0o600)
}

func (f *fakeSandboxes) RenameContainer(_ context.Context, id, name string) error {
	return f.change(id, func(c *sandbox.Container) {
		c.Config = proto.CloneOf(c.Config)
		c.Config.Metadata.Name = name
	})
}

// change changes a container.
func (f *fakeSandboxes) change(id string, change func(*sandbox.Container)) error {
	c, err := f.find(id)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&c.Container)
	return nil
}

func (f *fakeSandboxes) OOMKilled(string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.oomKilled
}

func (f *fakeSandboxes) Processes(string) ([]int, error) { return []int{os.Getpid()}, nil }

func (f *fakeSandboxes) ContainerDetail(context.Context, string) (*sandbox.ContainerDetail, error) {
	return &sandbox.ContainerDetail{Cgroup: &cgroups.Stats{
		At: time.Unix(9, 0), CPU: &cgroups.CPUStats{UsageNanos: 11}, Memory: &cgroups.MemoryStats{WorkingSet: 12, Limit: 13},
		Pids: &cgroups.PidsStats{Current: 14}, IO: []cgroups.IOStats{{ReadBytes: 15, WriteBytes: 16}, {ReadBytes: 1, WriteBytes: 2}},
	}}, nil
}

func (f *fakeSandboxes) PodDetail(context.Context, string) (*sandbox.PodDetail, error) {
	return &sandbox.PodDetail{Links: []sandboxns.Link{
		{Rx: sandboxns.Counters{Bytes: 17}, Tx: sandboxns.Counters{Bytes: 18}},
	}}, nil
}

// fakeLayers has the folders of layers, by key; each lies on the one after it.
type fakeLayers struct {
	// measured, when not nil, is called while the size of a container is read.
	measured func()

	dirs    map[string]string
	parents map[string]string
}

func (f *fakeLayers) LayerDirs(key string) ([]string, error) {
	var dirs []string
	for {
		dir, ok := f.dirs[key]
		if !ok {
			return nil, fmt.Errorf("snapshot %s: %w", key, errdefs.ErrNotFound)
		}
		dirs = append(dirs, dir)
		if key = f.parents[key]; key == "" {
			return dirs, nil
		}
	}
}

func (f *fakeLayers) ChainUsage(_ context.Context, key string) (own, all int64, err error) {
	if f.measured != nil {
		f.measured()
	}
	return 10, 30, nil
}

func (f *fakeSandboxes) Subscribe() (<-chan sandbox.Event, func()) {
	events := make(chan sandbox.Event, 128)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subscribers[events] = true
	return events, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subscribers, events)
	}
}

// fakeImages has the images given.
type fakeImages struct {
	// committed, config and layer are of the last Commit.
	committed imageservice.CommitRequest
	config    imageconfig.Config
	layer     bytes.Buffer

	mu     sync.Mutex
	images []imageservice.Image
	// configuration is that of all of them.
	configuration string
	pulled        imageservice.PullRequest
	observer      func(imageservice.Change)
}

func (f *fakeImages) Observe(observer func(imageservice.Change)) { f.observer = observer }

const (
	boxImage = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	webImage = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func newFakeImages() *fakeImages {
	box := &ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	box.Config.Cmd = []string{"sleep"}
	box.Config.Labels = map[string]string{"from": "image", "kind": "image"}
	web := &ocispec.Image{}
	web.Config.ExposedPorts = map[string]struct{}{"80/tcp": {}, "nonsense": {}}
	return &fakeImages{images: []imageservice.Image{
		{ID: boxImage, Tags: []string{"docker.io/library/box:latest"}, Config: box},
		{ID: webImage, Tags: []string{"docker.io/library/web:latest", "docker.io/other/web:1"}, Config: web},
	}}
}

func (f *fakeImages) Pull(_ context.Context, req imageservice.PullRequest) (imageservice.PullResult, error) {
	f.mu.Lock()
	f.pulled = req
	f.mu.Unlock()
	for i := range 10000 {
		req.Progress(imageservice.Progress{Digest: "sha256:1", Status: "Downloading", Current: int64(i)})
	}
	req.Progress(imageservice.Progress{Digest: "sha256:1", Status: "Pull complete"})
	return imageservice.PullResult{Image: f.images[0], Digest: "sha256:d", New: true}, nil
}

func (f *fakeImages) Image(_ context.Context, ref string) (imageservice.Image, error) {
	for _, img := range f.images {
		if slices.Contains(img.Tags, normalRef(ref)) || strings.HasPrefix(img.ID, ref) || strings.HasPrefix(strings.TrimPrefix(img.ID, "sha256:"), ref) {
			return img, nil
		}
	}
	return imageservice.Image{}, fmt.Errorf("image %s: %w", ref, errdefs.ErrNotFound)
}

func (f *fakeImages) Configuration(ctx context.Context, id string) ([]byte, error) {
	if _, err := f.Image(ctx, id); err != nil {
		return nil, err
	}
	return []byte(f.configuration), nil
}

func (f *fakeImages) Images(context.Context) ([]imageservice.Image, error) { return f.images, nil }

func (f *fakeImages) Untag(_ context.Context, ref string, _ bool) ([]string, []string, error) {
	return []string{ref}, nil, nil
}

func (f *fakeImages) Tag(ctx context.Context, ref, _ string) error {
	_, err := f.Image(ctx, ref)
	return err
}

func (f *fakeImages) Verify(context.Context, imageservice.VerifyOptions) (imageservice.Verified, error) {
	return imageservice.Verified{}, nil
}

func (f *fakeImages) DiskUsage(context.Context) (imageservice.DiskUsage, error) {
	return imageservice.DiskUsage{}, nil
}

func (f *fakeImages) Pulls() []imageservice.PullUnderWay { return nil }

func (f *fakeImages) Explain(context.Context, string, imageservice.Auth) (string, registry.Explanation, error) {
	return "", registry.Explanation{}, nil
}

func (f *fakeImages) FilesystemUsage(context.Context) (imageservice.FilesystemUsage, error) {
	return imageservice.FilesystemUsage{Mountpoint: "/images", Bytes: 7}, nil
}
