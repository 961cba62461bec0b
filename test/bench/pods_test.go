package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

const (
	// rounds is how many pods are timed, manyPods how many stand at once when memory is read.
	rounds   = 15
	manyPods = 30
	// maxRatio of our median to containerd's and maxPodMB of memory for a pod are what this project promises.
	maxRatio = 0.35
	maxPodMB = 0.3
	// settle is how long after the last pod memory is read.
	settle = 2 * time.Second
	limit  = 10 * time.Minute
	// workload is what the containers run.
	workload = "sleep"
)

const conflist = `{"cniVersion": "1.0.0", "name": %[1]q, "plugins": [
  {"type": "bridge", "bridge": %[1]q, "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local", "dataDir": %[2]q,
    "ranges": [[{"subnet": %[3]q}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`

// peer is a runtime being measured.
type peer struct {
	name     string
	dir      string // what the command lines of its processes name
	runtime  runtimeapi.RuntimeServiceClient
	parent   string // cgroup of its pods
	serial   int
	security *runtimeapi.LinuxContainerSecurityContext // of its containers; nil is none
	timings  []time.Duration
	perPodMB float64
}

func TestPods(t *testing.T) {
	testenv.Root(t)
	if os.Getenv("NODEAGENT_TEST_BENCH") != "yes" {
		t.Skip("measures; run make bench-pods")
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	registry := testenv.Registry(t)
	theirs, ours := newContainerd(t, registry), newAgent(t, registry)
	for _, one := range []*peer{theirs, ours} {
		one.pod(ctx, t, true) // what is only slow the first time
	}
	for range rounds {
		for _, one := range []*peer{theirs, ours} {
			one.timings = append(one.timings, one.pod(ctx, t, true))
		}
	}
	for _, one := range []*peer{theirs, ours} {
		one.measureMemory(ctx, t)
	}
	ratio := float64(median(ours.timings)) / float64(median(theirs.timings))
	fmt.Printf("%-12s %16s %12s\n", "", "pod to running", "memory/pod")
	for _, one := range []*peer{theirs, ours} {
		fmt.Printf("%-12s %13.1f ms %9.2f MB\n", one.name, median(one.timings).Seconds()*1000, one.perPodMB)
	}
	fmt.Printf("ratio of the medians of %d sequential pods: %.3f (at most %.2f)\n", rounds, ratio, maxRatio)
	if ratio > maxRatio {
		t.Errorf("a pod takes %.3f of containerd's time, at most %.2f is allowed", ratio, maxRatio)
	}
	if ours.perPodMB > maxPodMB {
		t.Errorf("a pod adds %.2f MB, at most %.2f is allowed", ours.perPodMB, maxPodMB)
	}
}

// network writes the configuration that both runtimes have, each with a bridge and addresses of its own.
func network(t *testing.T, name, subnet string) string {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf(conflist, name, filepath.Join(t.TempDir(), "ipam"), subnet)
	if err := os.WriteFile(filepath.Join(dir, "10-bench.conflist"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newContainerd(t *testing.T, registry *testenv.RegistryServer) *peer {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench-containerd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conn := startContainerd(t, dir, network(t, "benchtheirs", "10.231.0.0/16"), registry)
	return newPeer(t, "containerd", dir, conn)
}

func newAgent(t *testing.T, registry *testenv.RegistryServer) *peer {
	t.Helper()
	agent := testenv.Agent(t, testenv.AgentOptions{
		Registry: registry, CNIConfDir: network(t, "benchours", "10.232.0.0/16"), CNIBinDir: testenv.CNIPlugins(t),
		Args: []string{"--log-level", "info"},
	})
	return newPeer(t, "nodeagent", agent.Dir, agent.Conn())
}

func newPeer(t *testing.T, name, dir string, conn *grpc.ClientConn) *peer {
	t.Helper()
	p := newPeerWithoutImages(t, name, dir, conn)
	pull := &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: images.Busybox}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := runtimeapi.NewImageServiceClient(conn).PullImage(ctx, pull); err != nil {
		t.Fatalf("%s: pull: %v", name, err)
	}
	return p
}

func newPeerWithoutImages(t *testing.T, name, dir string, conn *grpc.ClientConn) *peer {
	p := &peer{name: name, dir: dir, runtime: runtimeapi.NewRuntimeServiceClient(conn), parent: fmt.Sprintf("/nodeagent-test-%d-bench-%s", os.Getpid(), name)}
	t.Cleanup(func() { removeCgroups(t, p.parent) })
	return p
}

// removeCgroups removes a cgroup that runtimes made because pods named it as their parent.
func removeCgroups(t *testing.T, parent string) {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/cgroup/*" + parent)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(found, "/sys/fs/cgroup"+parent) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("remove cgroup: %v", err)
		}
	}
}

// pod brings one pod up and returns how long it took until its container ran; unless it stays, it is taken down.
func (p *peer) pod(ctx context.Context, t *testing.T, down bool) time.Duration {
	t.Helper()
	p.serial++
	pod := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: fmt.Sprintf("bench-%d", p.serial), Uid: fmt.Sprint(p.serial), Namespace: "bench"},
		LogDirectory: filepath.Join(p.dir, "logs"),
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: p.parent},
	}
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "main"},
		Image:    &runtimeapi.ImageSpec{Image: images.Busybox},
		Command:  []string{workload, "1000"},
		LogPath:  fmt.Sprintf("%d.log", p.serial),
		Linux:    &runtimeapi.LinuxContainerConfig{SecurityContext: p.security},
	}
	fail := func(what string, err error) {
		if err != nil {
			t.Fatalf("%s: %s: %v", p.name, what, err)
		}
	}
	began := time.Now()
	sandbox, err := p.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: pod})
	fail("run pod", err)
	created, err := p.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox.PodSandboxId, Config: config, SandboxConfig: pod})
	fail("create container", err)
	_, err = p.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId})
	fail("start container", err)
	status, err := p.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: created.ContainerId})
	took := time.Since(began)
	fail("ask for status", err)
	if status.Status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("%s: the container is %s", p.name, status.Status.State)
	}
	if down {
		p.remove(ctx, t, sandbox.PodSandboxId)
	}
	return took
}

func (p *peer) remove(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	if _, err := p.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Fatalf("%s: stop pod: %v", p.name, err)
	}
	if _, err := p.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Fatalf("%s: remove pod: %v", p.name, err)
	}
}

// measureMemory compares the memory of the runtime's processes with many pods and with none.
func (p *peer) measureMemory(ctx context.Context, t *testing.T) {
	t.Helper()
	before := p.memory(ctx, t)
	for range manyPods {
		p.pod(ctx, t, false)
	}
	p.perPodMB = float64(p.memory(ctx, t)-before) / manyPods / (1 << 20)
	p.removeAll(ctx, t)
}

func (p *peer) memory(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	bytes, processes, err := runtimeBytes(p.dir, workload)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d processes, %.1f MB", p.name, processes, float64(bytes)/(1<<20))
	return bytes
}
