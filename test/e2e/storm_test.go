package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/leak"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

const (
	// stormPods are made and removed by stormWorkers, and the agent is killed once a part of them is through.
	stormPods    = 200
	stormWorkers = 16
	stormKill    = stormPods / 3
	// stormPort is the first of the pods' ports of the host.
	stormPort = 21000
	// stormPause is the time between a failed call and the next.
	stormPause = 10 * time.Millisecond
)

// Many pods come and go, and the agent is killed in the midst of it. Its clients repeat what failed, as kubelet does,
// and afterwards, with the agent still up, nothing is there that was not there before.
func TestStormOfPodsAndAKill(t *testing.T) {
	t.Run("embedded network", func(t *testing.T) {
		stormAndKill(newNode(t, testenv.AgentOptions{Args: []string{"--log-level", "info"}}), "")
	})
	t.Run("configured network", func(t *testing.T) {
		dir := t.TempDir()
		ipam := filepath.Join(dir, "ipam")
		if err := os.WriteFile(filepath.Join(dir, "10-storm.conflist"), []byte(conflist("storm", "e2estorm0", "10.235.0.0/24", ipam)), 0o644); err != nil {
			t.Fatal(err)
		}
		n := newNode(t, testenv.AgentOptions{CNIConfDir: dir, CNIBinDir: testenv.CNIPlugins(t), Args: []string{"--log-level", "info"}})
		stormAndKill(n, ipam)
		n.deleteLink("e2estorm0")
	})
}

// stormAndKill makes the storm; ipam is where addresses of a configured network are noted.
func stormAndKill(n *node, ipam string) {
	t := n.t
	// The network's bridge and table stay once a pod has used all of them.
	first := n.podConfig("first")
	first.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: stormPort - 1}}
	n.RemovePod(n.RunPod(first))
	before, err := leak.Take()
	n.Must("look at the machine", err)

	s := &storm{socket: "unix://" + n.Socket, killed: make(chan struct{})}
	s.left.Store(stormPods)
	configs := make(chan *runtimeapi.PodSandboxConfig, stormPods)
	for i := range stormPods {
		config := n.podConfig(fmt.Sprintf("storm-%d", i))
		config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: int32(stormPort + i)}}
		configs <- config
	}
	close(configs)
	var workers sync.WaitGroup
	for range stormWorkers {
		workers.Go(func() {
			for config := range configs {
				if err := s.pod(config); err != nil {
					t.Errorf("pod %s: %v", config.Metadata.Name, err)
				}
				s.through()
			}
		})
	}
	<-s.killed
	n.Kill9()
	n.Start()
	workers.Wait()

	for _, one := range n.listPods() {
		t.Errorf("pod %s is left, %s", one.Metadata.Name, one.State)
	}
	testenv.Eventually(t, eventLimit, "the machine is as it was", func() error {
		after, err := leak.Take()
		if err != nil {
			return err
		}
		for _, pattern := range []string{
			filepath.Join(ipam, "*", "[0-9]*"), filepath.Join(n.State, "network", "ipam", "*", "[0-9]*"),
			filepath.Join(n.Root, "network", "intents", "*"), filepath.Join(n.State, "network", "intents", "*"),
		} {
			if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
				return fmt.Errorf("left: %v, %w", left, err)
			}
		}
		if left := before.Newer(after, "descriptor", fmt.Sprintf("process: %d ", n.Pid())); len(left) > 0 {
			return fmt.Errorf("left:\n%s", strings.Join(left, "\n"))
		}
		return nil
	})
}

// storm is what the workers share.
type storm struct {
	socket string
	left   atomic.Int32
	killed chan struct{}
}

// through counts a pod that came and went.
func (s *storm) through() {
	if s.left.Add(-1) == stormPods-stormKill {
		close(s.killed)
	}
}

// dial is a connection of a worker's own, which survives an agent.
func (s *storm) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient(s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// pod makes and removes one pod. What fails for want of an agent is repeated.
func (s *storm) pod(config *runtimeapi.PodSandboxConfig) error {
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	client := runtimeapi.NewRuntimeServiceClient(conn)
	var id string
	err = s.repeat("run", func(ctx context.Context) error {
		answer, err := client.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config}, grpc.WaitForReady(true))
		id = answer.GetPodSandboxId()
		return err
	})
	if err != nil {
		return err
	}
	err = s.repeat("stop", func(ctx context.Context) error {
		_, err := client.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}, grpc.WaitForReady(true))
		return err
	})
	if err != nil {
		return err
	}
	return s.repeat("remove", func(ctx context.Context) error {
		_, err := client.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}, grpc.WaitForReady(true))
		return err
	})
}

// repeat repeats a call for as long as the agent is away.
func (s *storm) repeat(what string, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	for {
		err := call(ctx)
		if err == nil {
			return nil
		}
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, errors.Join(err, ctx.Err()))
		}
		select {
		case <-time.After(stormPause):
		case <-ctx.Done():
		}
	}
}
