package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// ticking is a container that counts in its log, and writes to its layer.
func ticking(name string) *runtimeapi.ContainerConfig {
	return pods.Shell(name, "echo kept > /kept; i=0; while sleep 0.1; do i=$((i+1)); echo tick $i; done")
}

// A pod goes on counting where its checkpoint was made, as another pod. Where
// CRIU does not work, the error says what is missing, and the pod goes on.
func TestCheckpointAndRestorePod(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("count")
	pod := n.RunPod(config)
	containers := []*runtimeapi.ContainerConfig{ticking("a"), ticking("b")}
	var ids []string
	for _, c := range containers {
		ids = append(ids, n.Started(pod, config, c))
	}
	n.ticks("a", 3)
	out := t.TempDir()
	ctx, cancel := n.Context()
	defer cancel()
	_, err := n.Runtime().CheckpointPod(ctx, &runtimeapi.CheckpointPodRequest{PodSandboxId: pod, OutputPath: out, ContainerIds: ids})
	if status.Code(err) == codes.Unimplemented {
		if !strings.Contains(err.Error(), "criu") {
			t.Errorf("the error does not say what is missing: %v", err)
		}
		if entries, _ := os.ReadDir(out); len(entries) > 0 {
			t.Errorf("left %v", entries)
		}
		n.ticks("a", 6)
		n.RemovePod(pod)
		return
	}
	n.Must("checkpoint pod", err)
	n.ticks("b", 6)
	n.RemovePod(pod)
	n.restored(out, containers)
}

// restored restores the pod under another UID and checks that it goes on.
func (n *node) restored(path string, containers []*runtimeapi.ContainerConfig) {
	n.t.Helper()
	config := n.podConfig("count")
	config.Metadata.Uid += "-again"
	for _, c := range containers {
		c.LogPath = "again-" + c.LogPath
	}
	ctx, cancel := n.Context()
	defer cancel()
	resp, err := n.Runtime().RestorePod(ctx, &runtimeapi.RestorePodRequest{
		CheckpointPath: path, Config: config, ContainerConfigs: containers,
	})
	n.Must("restore pod", err)
	for _, c := range resp.RestoredContainers {
		if s := n.Status(c.ContainerId); s.State != runtimeapi.ContainerState_CONTAINER_CREATED {
			n.t.Errorf("container %s is %s", c.Name, s.State)
		}
		_, err := n.Runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: c.ContainerId})
		n.Must("start restored container", err)
	}
	for _, c := range resp.RestoredContainers {
		n.ticks("again-"+c.Name, 5)
		for _, line := range n.logLines("again-" + c.Name + ".log") {
			if strings.HasSuffix(line, "tick 1") {
				n.t.Errorf("container %s began anew", c.Name)
			}
		}
		if got := n.Exec(c.ContainerId, "cat", "/kept"); strings.TrimSpace(got) != "kept" {
			n.t.Errorf("its layer has %q", got)
		}
	}
	n.RemovePod(resp.PodSandboxId)
}

// ticks waits until a log has so many lines.
func (n *node) ticks(name string, count int) {
	n.t.Helper()
	testenv.Eventually(n.t, eventLimit, fmt.Sprintf("%d lines of %s", count, name), func() error {
		if _, err := os.Stat(filepath.Join(n.logs, name+".log")); err != nil {
			return err
		}
		if len(n.logLines(name+".log")) < count {
			return errors.New("too few")
		}
		return nil
	})
}
