package e2e

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// expected are the codes of calls that come when they will, and give up when they will.
var expected = map[codes.Code]bool{
	codes.OK: true, codes.NotFound: true, codes.AlreadyExists: true, codes.FailedPrecondition: true, codes.DeadlineExceeded: true, codes.Canceled: true,
}

// disorder makes calls at random on few names, so that they meet in all orders.
type disorder struct {
	*node
	random *rand.Rand
}

func pick[T any](d *disorder, items []T, id func(T) string) string {
	if len(items) == 0 {
		return "none"
	}
	return id(items[d.random.Intn(len(items))])
}

// call makes one call, and returns its name.
func (d *disorder) call(ctx context.Context) (name string, err error) {
	rt := d.Runtime()
	listed, err := rt.ListPodSandbox(context.WithoutCancel(ctx), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return "list pods", err
	}
	ctrs, err := rt.ListContainers(context.WithoutCancel(ctx), &runtimeapi.ListContainersRequest{})
	if err != nil {
		return "list containers", err
	}
	pod := pick(d, listed.Items, (*runtimeapi.PodSandbox).GetId)
	ctr := pick(d, ctrs.Containers, (*runtimeapi.Container).GetId)
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: fmt.Sprint("p", d.random.Intn(3)), Uid: "u", Namespace: "e2e", Attempt: uint32(d.random.Intn(3))},
		Linux:    &runtimeapi.LinuxPodSandboxConfig{},
	}
	switch d.random.Intn(14) {
	case 0, 1:
		_, err = rt.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
		return "run pod", err
	case 2, 3, 4:
		c := pods.Shell(fmt.Sprint("c", d.random.Intn(3)), "sleep 1000")
		c.Metadata.Attempt = uint32(d.random.Intn(3))
		_, err = rt.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: config})
		return "create", err
	case 5, 6, 7:
		_, err = rt.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: ctr})
		return "start", err
	case 8:
		_, err = rt.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: ctr, Timeout: int64(d.random.Intn(2))})
		return "stop", err
	case 9:
		_, err = rt.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: ctr})
		return "remove", err
	case 10:
		_, err = rt.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
		return "stop pod", err
	case 11:
		_, err = rt.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
		return "remove pod", err
	case 12:
		limits := &runtimeapi.LinuxContainerResources{CpuShares: int64(100 + d.random.Intn(100)), OomScoreAdj: int64(d.random.Intn(100))}
		_, err = rt.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: ctr, Linux: limits})
		return "update", err
	}
	_, err = rt.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: ctr, Cmd: []string{"true"}, Timeout: 10})
	return "exec", err
}

// Calls that come in any order, at once, and are given up at any moment, get answers that say what is wrong, and neither
// they nor the supervisor hang or die of it.
func TestCallsInAnyOrder(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	var callers sync.WaitGroup
	end := time.Now().Add(8 * time.Second)
	for i := range 12 {
		callers.Go(func() {
			d := &disorder{n, rand.New(rand.NewSource(int64(i)))}
			for time.Now().Before(end) {
				limit := time.Minute
				if d.random.Intn(4) == 0 {
					limit = time.Duration(1+d.random.Intn(30)) * time.Millisecond
				}
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				begun := time.Now()
				name, err := d.call(ctx)
				cancel()
				if !expected[status.Code(err)] || strings.Contains(status.Convert(err).Message(), "\n") {
					t.Errorf("%s: %v", name, err)
				}
				if took := time.Since(begun); took > 10*time.Second {
					t.Errorf("%s took %s: %v", name, took, err)
				}
			}
		})
	}
	callers.Wait()
	for _, pod := range n.listPods() {
		n.RemovePod(pod.Id)
	}
	log, err := os.ReadFile(filepath.Join(n.State, "supervisor.log"))
	n.Must("read the supervisor's log", err)
	if starts := strings.Count(string(log), "supervisor is up"); starts != 1 {
		t.Errorf("there were %d supervisors", starts)
	}
}
