package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// callLimit bounds each call to the agent, eventLimit what a container does by itself.
const (
	callLimit  = time.Minute
	eventLimit = 20 * time.Second
)

// node is an agent and what tests ask of it. A failed call ends the test unless the name of the method says that it
// returns the error.
type node struct {
	*testenv.AgentProcess
	t    *testing.T
	logs string // folder of the pods' logs
	pods int
}

// newNode starts an agent with the test images in reach. It begins a test: without root the test is skipped.
func newNode(t *testing.T, options testenv.AgentOptions) *node {
	t.Helper()
	testenv.Root(t)
	if testing.Short() {
		t.Skip("starts an agent and pulls images")
	}
	testenv.Leaks(t)
	options.Registry = testenv.Registry(t)
	agent := testenv.Agent(t, options)
	return &node{AgentProcess: agent, t: t, logs: filepath.Join(agent.Dir, "logs")}
}

func (n *node) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), callLimit)
}

func (n *node) must(what string, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s: %v", what, err)
	}
}

func (n *node) pull(image string) {
	n.t.Helper()
	n.must("pull "+image, n.pullError(image))
}

func (n *node) pullError(image string) error {
	ctx, cancel := n.context()
	defer cancel()
	_, err := n.Images().PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	return err
}

// podConfig makes the configuration of a pod that no other test of this process has.
func (n *node) podConfig(name string) *runtimeapi.PodSandboxConfig {
	n.pods++
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Uid: fmt.Sprintf("%s-%d", name, n.pods), Namespace: "e2e"},
		Hostname:     name,
		LogDirectory: n.logs,
		Linux:        &runtimeapi.LinuxPodSandboxConfig{},
	}
}

func (n *node) run(config *runtimeapi.PodSandboxConfig) string {
	n.t.Helper()
	id, err := n.runError(config)
	n.must("run pod "+config.Metadata.Name, err)
	return id
}

func (n *node) runError(config *runtimeapi.PodSandboxConfig) (string, error) {
	ctx, cancel := n.context()
	defer cancel()
	answer, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
	return answer.GetPodSandboxId(), err
}

// shell is a container that runs a shell command in the busybox image.
func shell(name, command string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: images.Busybox},
		Command:  []string{"sh", "-c", command},
		LogPath:  name + ".log",
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}
}

func (n *node) create(pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) string {
	n.t.Helper()
	id, err := n.createError(pod, podConfig, config)
	n.must("create container "+config.Metadata.Name, err)
	return id
}

func (n *node) createError(pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) (string, error) {
	ctx, cancel := n.context()
	defer cancel()
	answer, err := n.Runtime().CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
	return answer.GetContainerId(), err
}

// started creates and starts a container.
func (n *node) started(pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) string {
	n.t.Helper()
	id := n.create(pod, podConfig, config)
	ctx, cancel := n.context()
	defer cancel()
	_, err := n.Runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	n.must("start container "+config.Metadata.Name, err)
	return id
}

func (n *node) stop(container string, seconds int64) {
	n.t.Helper()
	ctx, cancel := n.context()
	defer cancel()
	_, err := n.Runtime().StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: container, Timeout: seconds})
	n.must("stop container", err)
}

func (n *node) remove(pod string) {
	n.t.Helper()
	ctx, cancel := n.context()
	defer cancel()
	_, err := n.Runtime().RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
	n.must("remove pod", err)
}

func (n *node) status(container string) *runtimeapi.ContainerStatus {
	n.t.Helper()
	ctx, cancel := n.context()
	defer cancel()
	answer, err := n.Runtime().ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: container})
	n.must("container status", err)
	return answer.Status
}

// exited waits for the end of a container and returns its last status.
func (n *node) exited(container string) *runtimeapi.ContainerStatus {
	n.t.Helper()
	var last *runtimeapi.ContainerStatus
	testenv.Eventually(n.t, eventLimit, "the container ends", func() error {
		if last = n.status(container); last.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("it is %s", last.State)
		}
		return nil
	})
	return last
}

func (n *node) podStatus(pod string) *runtimeapi.PodSandboxStatus {
	n.t.Helper()
	ctx, cancel := n.context()
	defer cancel()
	answer, err := n.Runtime().PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	n.must("pod status", err)
	return answer.Status
}

// exec runs a command in a container and returns its standard output.
func (n *node) exec(container string, command ...string) string {
	n.t.Helper()
	ctx, cancel := n.context()
	defer cancel()
	answer, err := n.Runtime().ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: command, Timeout: 30})
	n.must("exec "+strings.Join(command, " "), err)
	if answer.ExitCode != 0 {
		n.t.Fatalf("exec %s: exit code %d: %s", strings.Join(command, " "), answer.ExitCode, answer.Stderr)
	}
	return string(answer.Stdout)
}

// logLines returns the text of each line of a CRI log, and fails the test on one that is not of its format.
func (n *node) logLines(name string) []string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.logs, name))
	n.must("read log", err)
	var lines []string
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(parts) != 4 {
			n.t.Fatalf("log line %q is not of CRI's format", line)
		}
		if _, err := time.Parse(time.RFC3339Nano, parts[0]); err != nil {
			n.t.Fatalf("log line %q: %v", line, err)
		}
		lines = append(lines, parts[3])
	}
	return lines
}
