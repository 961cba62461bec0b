package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// counting writes a number every few milliseconds, for ever.
const counting = `i=0; while true; do i=$((i+1)); echo $i; usleep 5000; done`

// killStep is by how much later the agent is killed each time, to hit every part of a pod's way up and down.
const killStep = 3 * time.Millisecond

// watchersLimit is how long the agent may take to end when it has nothing to do; cut off are calls after three seconds.
const watchersLimit = 2900 * time.Millisecond

// A container neither notices nor suffers from the death of the agent: it goes on, its log has no gap, and afterwards
// all that can be asked of it can be asked again.
func TestPodsOutliveTheAgent(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("outlive")
	pod := n.RunPod(config)
	running := n.Started(pod, config, pods.Shell("running", counting))
	created := n.Create(pod, config, pods.Shell("created", "echo started late"))
	before, address := n.Status(running), n.PodStatus(pod).Network.Ip

	n.Kill9()
	n.Start()

	if after := n.PodStatus(pod); after.State != runtimeapi.PodSandboxState_SANDBOX_READY || after.Network.GetIp() != address {
		t.Errorf("the pod is %s at %s, it was at %s", after.State, after.Network.GetIp(), address)
	}
	after := n.Status(running)
	if after.State != runtimeapi.ContainerState_CONTAINER_RUNNING || after.StartedAt != before.StartedAt || after.ImageId != before.ImageId {
		t.Errorf("the container changed: %v, before: %v", after, before)
	}
	if got := n.Exec(running, "hostname"); got != "outlive\n" {
		t.Errorf("exec in it gives %q", got)
	}
	n.noGap("running.log", 50)
	ctx, cancel := n.Context()
	defer cancel()
	_, err := n.Runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created})
	n.Must("start what was created before", err)
	if status := n.Ended(created); status.ExitCode != 0 {
		t.Errorf("exit code %d", status.ExitCode)
	}
	n.StopContainer(running, 0)
	if status := n.Status(running); status.ExitCode != 137 {
		t.Errorf("killed with exit code %d", status.ExitCode)
	}
	n.RemovePod(pod)
}

// noGap waits until a log of counting has some more lines and checks that none is missing.
func (n *node) noGap(log string, more int) {
	n.t.Helper()
	seen := len(n.logLines(log))
	var lines []string
	testenv.Eventually(n.t, eventLimit, "the log goes on", func() error {
		if lines = n.logLines(log); len(lines) < seen+more {
			return fmt.Errorf("%d lines, there were %d", len(lines), seen)
		}
		return nil
	})
	for i, line := range lines {
		if line != strconv.Itoa(i+1) {
			n.t.Fatalf("line %d of the log is %q", i+1, line)
		}
	}
}

// A container that ends while no agent runs keeps its exit code, the whole of its log and the time of its end.
func TestExitWhileTheAgentIsDown(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("down")
	pod := n.RunPod(config)
	gate := pods.Shell("gate", "while [ ! -e /gate/open ]; do usleep 5000; done; echo passed; exit 7")
	dir := t.TempDir()
	gate.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/gate"}}
	id := n.Started(pod, config, gate)
	n.Kill9()
	touch(t, dir, "open")
	testenv.Eventually(t, eventLimit, "the log is written without an agent", func() error {
		if lines := n.logLines("gate.log"); !slices.Equal(lines, []string{"passed"}) {
			return fmt.Errorf("it has %q", lines)
		}
		return nil
	})
	n.Start()
	status := n.Ended(id)
	if status.ExitCode != 7 || status.FinishedAt == 0 {
		t.Errorf("exit code %d, finished at %d", status.ExitCode, status.FinishedAt)
	}
	n.RemovePod(pod)
}

// Who watches for events does not hold up the agent's end, which the next one waits for.
func TestStopWithWatchers(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	n.ctl("run", "-d", "--name", "talker", images.Busybox, "sh", "-c", "echo hello; sleep 1000")
	conn, err := (&storm{socket: "unix://" + n.Socket}).dial() // the node's own is closed before the agent ends
	n.Must("connect", err)
	defer conn.Close()
	events, err := runtimeapi.NewRuntimeServiceClient(conn).GetContainerEvents(t.Context(), &runtimeapi.GetEventsRequest{})
	n.Must("subscribe", err)
	logs := exec.CommandContext(t.Context(), testenv.Binary(t, "nodectl"), "-H", "unix://"+n.Socket, "logs", "-f", "talker")
	var said strings.Builder
	logs.Stderr = &said
	out, err := logs.StdoutPipe()
	n.Must("pipe", err)
	n.Must("follow logs", logs.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "hello\n" {
		t.Errorf("logs: %q, %v", line, err)
	}
	began := time.Now()
	n.Stop()
	if took := time.Since(began); took > watchersLimit {
		t.Errorf("the agent ended after %v", took)
	}
	if _, err := events.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("events end with %v", err)
	}
	if err := logs.Wait(); err == nil || strings.Count(said.String(), "\n") != 1 {
		t.Errorf("logs end with %v: %s", err, said.String())
	}
	n.Start()
	n.ctl("rm", "-f", "talker")
}

// Killed over and over in the middle of its work, the agent always comes back, forgets no pod that it had promised, and
// leaves nothing of those that it had not: kubelet's repeated call brings the pod up.
func TestKilledInTheMiddle(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	for i := range 12 {
		config := n.podConfig("middle")
		done := make(chan struct{})
		go func() {
			defer close(done)
			ctx, cancel := context.WithTimeout(context.Background(), callLimit)
			defer cancel()
			if answer, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config}); err == nil {
				_, _ = n.Runtime().StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: answer.PodSandboxId})
			}
		}()
		<-time.After(time.Duration(i) * killStep)
		n.Kill9()
		<-done
		n.Start()
		n.Must("nothing is half-made", n.wellFormed())
	}
	config := n.podConfig("middle")
	pod := n.RunPod(config)
	n.Started(pod, config, pods.Shell("after", "sleep 1000"))
	for _, one := range n.listPods() {
		n.RemovePod(one.Id)
	}
}

func (n *node) listPods() []*runtimeapi.PodSandbox {
	n.t.Helper()
	ctx, cancel := n.Context()
	defer cancel()
	answer, err := n.Runtime().ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	n.Must("list pods", err)
	return answer.Items
}

// wellFormed checks that each listed pod can be asked for, and has an address when it is ready.
func (n *node) wellFormed() error {
	var wrong []error
	for _, one := range n.listPods() {
		status := n.PodStatus(one.Id)
		if status.State == runtimeapi.PodSandboxState_SANDBOX_READY && status.Network.GetIp() == "" {
			wrong = append(wrong, fmt.Errorf("pod %s is ready without an address", one.Id))
		}
	}
	return errors.Join(wrong...)
}
