package cve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// A list that outgrows the 16 MiB which kubelet reads is answered all the same, and in parts that everybody can read.
func TestListsBeyond16MiB(t *testing.T) {
	n := newNode(t)
	config := n.podConfig()
	pod := n.RunPod(config)
	const count, each = 20, 1 << 20
	for i := range count {
		ctr := idle(fmt.Sprintf("large-%d", i))
		ctr.Annotations = map[string]string{"large": strings.Repeat("x", each)}
		_, err := n.CreateError(pod, config, ctr)
		n.Must("create container", err)
	}
	ctx, cancel := n.Context()
	defer cancel()
	all, err := n.Runtime().ListContainers(ctx, &runtimeapi.ListContainersRequest{}, grpc.MaxCallRecvMsgSize(64<<20))
	n.Must("list containers", err)
	if len(all.Containers) != count {
		t.Errorf("%d containers", len(all.Containers))
	}
	stream, err := n.Runtime().StreamContainers(ctx, &runtimeapi.StreamContainersRequest{})
	n.Must("stream containers", err)
	streamed := 0
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			break
		}
		n.Must("read part", err)
		streamed += len(part.Containers)
	}
	if streamed != count {
		t.Errorf("%d containers in parts", streamed)
	}
	log, err := os.ReadFile(n.LogPath)
	n.Must("read the agent's log", err)
	if !strings.Contains(string(log), "kubelet reads 16 MiB") {
		t.Error("the agent does not warn")
	}
}

// A container that dies because its pod's limit is met is told as out of memory too.
func TestOutOfMemoryOfThePod(t *testing.T) {
	n := newNode(t)
	config := n.podConfig()
	config.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 24 << 20, MemorySwapLimitInBytes: 24 << 20}
	pod := n.RunPod(config)
	if state := n.Ended(n.Started(pod, config, pods.Shell("hungry", "exec dd if=/dev/zero of=/dev/null bs=64M"))); state.Reason != "OOMKilled" || state.ExitCode != 137 {
		t.Errorf("%s, exit code %d", state.Reason, state.ExitCode)
	}
	if state := n.Ended(n.Started(pod, config, pods.Shell("content", "exit 3"))); state.Reason != "Error" || state.ExitCode != 3 {
		t.Errorf("one that had enough: %s, exit code %d", state.Reason, state.ExitCode)
	}
}

// Why a container ended is told as it was: out of memory at once, in a child that the container outlives or not, and
// killed for no such reason.
func TestOutOfMemoryReasons(t *testing.T) {
	n := newNode(t)
	config := n.podConfig()
	pod := n.RunPod(config)
	const hungry = "dd if=/dev/zero of=/dev/null bs=64M"
	for name, test := range map[string]struct {
		command, reason string
		code            int32
	}{
		"instant": {"exec " + hungry, "OOMKilled", 137}, "child": {hungry + "; exit 5", "OOMKilled", 5},
		"killed": {"kill -9 $$; kill -9 1", "Error", 137}, "failed": {"exit 137", "Error", 137}, "good": {"true", "Completed", 0},
	} {
		for attempt := range 3 {
			ctr := pods.Shell(name, test.command)
			ctr.Metadata.Attempt = uint32(attempt)
			ctr.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 20, MemorySwapLimitInBytes: 16 << 20}
			if name == "killed" {
				// The first process of a PID namespace does not die of its own signals.
				ctr.Command = []string{"sleep", "1000"}
			}
			id := n.Started(pod, config, ctr)
			if name == "killed" {
				n.Must("kill", n.kill(id))
			}
			if state := n.Ended(id); state.Reason != test.reason || state.ExitCode != test.code {
				t.Errorf("%s: %s, exit code %d", name, state.Reason, state.ExitCode)
			}
		}
	}
}

// Events, put together, give what the lists say, whatever comes and goes meanwhile.
func TestEventsAgreeWithLists(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events, err := n.Runtime().GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	n.Must("subscribe", err)
	got := make(chan *runtimeapi.ContainerEventResponse, 4096)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			event, err := events.Recv()
			if err != nil {
				return
			}
			got <- event
		}
	}()
	n.subscribed(got)
	unseen := n.Made()
	churn(n)
	state := map[string]runtimeapi.ContainerEventType{}
	var last int64
	testenv.Eventually(t, eventLimit, "the events say what the lists do", func() error {
		for len(got) > 0 {
			event := <-got
			if event.CreatedAt <= last {
				t.Fatalf("an event of %d after one of %d", event.CreatedAt, last)
			}
			last = event.CreatedAt
			state[event.ContainerId] = event.ContainerEventType
			if event.ContainerEventType == runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT {
				delete(state, event.ContainerId)
			}
			if event.PodSandboxStatus == nil {
				t.Fatalf("an event without a pod: %v", event)
			}
		}
		return n.agrees(state, unseen)
	})
	cancel()
	<-ended
}

// subscribed waits until events come, which is some time after they were asked for.
func (n *node) subscribed(got <-chan *runtimeapi.ContainerEventResponse) {
	n.t.Helper()
	testenv.Eventually(n.t, eventLimit, "events come", func() error {
		n.RunPod(n.podConfig())
		if len(got) == 0 {
			return errors.New("none does")
		}
		return nil
	})
}

// churn makes, stops and removes pods and containers side by side, and leaves some in each state.
func churn(n *node) {
	n.t.Helper()
	var workers sync.WaitGroup
	for range 4 {
		var configs []*runtimeapi.PodSandboxConfig
		for range 6 {
			configs = append(configs, n.podConfig())
		}
		workers.Go(func() {
			for i, config := range configs {
				if err := oneRound(n, config, i); err != nil {
					n.t.Error(err)
				}
			}
		})
	}
	workers.Wait()
}

// oneRound takes a pod with two containers as far as the round says: even ones to its removal.
func oneRound(n *node, config *runtimeapi.PodSandboxConfig, round int) error {
	ctx, cancel := n.Context()
	defer cancel()
	r := n.Runtime()
	pod, err := n.RunPodError(config)
	if err != nil {
		return err
	}
	for _, ctr := range []*runtimeapi.ContainerConfig{idle("idle"), pods.Shell("short", "true"), idle("created")} {
		answer, err := r.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: ctr, SandboxConfig: config})
		if err == nil && ctr.Metadata.Name != "created" {
			_, err = r.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: answer.ContainerId})
		}
		if err != nil {
			return err
		}
	}
	switch {
	case round%2 == 0:
		_, err = r.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
	case round%3 == 0:
		_, err = r.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
	}
	return err
}

// agrees compares the last event of each pod and container with the lists. Of the unseen none may have come.
func (n *node) agrees(state map[string]runtimeapi.ContainerEventType, unseen []string) error {
	n.t.Helper()
	ctx, cancel := n.Context()
	defer cancel()
	containers, err := n.Runtime().ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	n.Must("list containers", err)
	pods, err := n.Runtime().ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	n.Must("list pods", err)
	listed := map[string]runtimeapi.ContainerEventType{}
	for _, one := range containers.Containers {
		listed[one.Id] = map[runtimeapi.ContainerState]runtimeapi.ContainerEventType{
			runtimeapi.ContainerState_CONTAINER_CREATED: runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT,
			runtimeapi.ContainerState_CONTAINER_RUNNING: runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT,
			runtimeapi.ContainerState_CONTAINER_EXITED:  runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
		}[one.State]
	}
	for _, one := range pods.Items {
		listed[one.Id] = runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
		if one.State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
			listed[one.Id] = runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
		}
	}
	for id, want := range listed {
		if got, known := state[id]; known && got != want {
			return fmt.Errorf("%s: the last event is %s, the list says %s", id, got, want)
		}
		if _, known := state[id]; !known && !slices.Contains(unseen, id) {
			return fmt.Errorf("%s: no event came", id)
		}
	}
	for id := range state {
		if _, known := listed[id]; !known {
			return fmt.Errorf("%s is not listed, and no event says that it is gone", id)
		}
	}
	return nil
}

// kill kills a container's first process, as an operator on the node might.
func (n *node) kill(id string) error { return unix.Kill(n.pid(id), unix.SIGKILL) }
