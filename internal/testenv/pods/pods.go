// Package pods asks the agent of a test for pods and containers over CRI.
package pods

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

const (
	// CallLimit bounds each call to the agent.
	CallLimit = time.Minute
	// EventLimit bounds what a container does by itself.
	EventLimit = 20 * time.Second
	// execLimit bounds a command, in seconds.
	execLimit = 30
	// maxAnswer is the longest answer to ExecSync that is read, in bytes.
	maxAnswer = 64 << 20
)

// Client asks one agent for one test. A failed call ends the test unless the name of the method says that it returns the
// error.
type Client struct {
	*testenv.AgentProcess
	t testing.TB

	mu   sync.Mutex
	made []string // pods
}

// New returns a client of an agent, which others may have too.
func New(t testing.TB, agent *testenv.AgentProcess) *Client {
	return &Client{AgentProcess: agent, t: t}
}

// Context is for one call.
func (c *Client) Context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), CallLimit)
}

// Must ends the test on an error.
func (c *Client) Must(what string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
}

// Pull pulls an image.
func (c *Client) Pull(image string) {
	c.t.Helper()
	c.Must("pull "+image, c.PullError(image))
}

// PullError pulls an image.
func (c *Client) PullError(image string) error {
	ctx, cancel := c.Context()
	defer cancel()
	_, err := c.Images().PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	return err
}

// RunPod makes a pod and returns its ID.
func (c *Client) RunPod(config *runtimeapi.PodSandboxConfig) string {
	c.t.Helper()
	id, err := c.RunPodError(config)
	c.Must("run pod "+config.GetMetadata().GetName(), err)
	return id
}

// RunPodError makes a pod and returns its ID.
func (c *Client) RunPodError(config *runtimeapi.PodSandboxConfig) (string, error) {
	ctx, cancel := c.Context()
	defer cancel()
	answer, err := c.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.made = append(c.made, answer.PodSandboxId)
	}
	return answer.GetPodSandboxId(), err
}

// RemovePod removes a pod.
func (c *Client) RemovePod(id string) {
	c.t.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	_, err := c.Runtime().RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	c.Must("remove pod", err)
}

// Made are the IDs of the pods that this client made.
func (c *Client) Made() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.made)
}

// RemovePods removes the pods that this client made, for an agent that outlives the test.
func (c *Client) RemovePods() {
	for _, id := range c.Made() {
		ctx, cancel := c.Context()
		if _, err := c.Runtime().RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			c.t.Errorf("remove pod: %v", err)
		}
		cancel()
	}
}

// PodStatus asks for a pod's status.
func (c *Client) PodStatus(id string) *runtimeapi.PodSandboxStatus {
	c.t.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	answer, err := c.Runtime().PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	c.Must("pod status", err)
	return answer.Status
}

// Shell is a container that runs a shell command in the busybox image.
func Shell(name, command string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: images.Busybox},
		Command:  []string{"sh", "-c", command},
		LogPath:  name + ".log",
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}
}

// Create creates a container and returns its ID.
func (c *Client) Create(pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) string {
	c.t.Helper()
	id, err := c.CreateError(pod, podConfig, config)
	c.Must("create container "+config.GetMetadata().GetName(), err)
	return id
}

// CreateError creates a container and returns its ID.
func (c *Client) CreateError(pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) (string, error) {
	ctx, cancel := c.Context()
	defer cancel()
	answer, err := c.Runtime().CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
	return answer.GetContainerId(), err
}

// Started creates and starts a container and returns its ID.
func (c *Client) Started(pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) string {
	c.t.Helper()
	id, err := c.StartError(pod, podConfig, config)
	c.Must("start container "+config.GetMetadata().GetName(), err)
	return id
}

// StartError creates and starts a container. One that was made has an ID, whatever became of its start.
func (c *Client) StartError(pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) (string, error) {
	id, err := c.CreateError(pod, podConfig, config)
	if err != nil {
		return "", err
	}
	ctx, cancel := c.Context()
	defer cancel()
	_, err = c.Runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	return id, err
}

// StopContainer stops a container, which has some seconds to end by itself.
func (c *Client) StopContainer(id string, seconds int64) {
	c.t.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	_, err := c.Runtime().StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: seconds})
	c.Must("stop container", err)
}

// Status asks for a container's status.
func (c *Client) Status(id string) *runtimeapi.ContainerStatus {
	c.t.Helper()
	ctx, cancel := c.Context()
	defer cancel()
	answer, err := c.Runtime().ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	c.Must("container status", err)
	return answer.Status
}

// Ended waits for the end of a container and returns its last status.
func (c *Client) Ended(id string) *runtimeapi.ContainerStatus {
	c.t.Helper()
	var last *runtimeapi.ContainerStatus
	testenv.Eventually(c.t, EventLimit, "the container ends", func() error {
		if last = c.Status(id); last.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("it is %s", last.State)
		}
		return nil
	})
	return last
}

// ExecSync runs a command; timeout is in seconds.
func (c *Client) ExecSync(id string, timeout int64, command ...string) (*runtimeapi.ExecSyncResponse, error) {
	ctx, cancel := c.Context()
	defer cancel()
	return c.Runtime().ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: timeout},
		grpc.MaxCallRecvMsgSize(maxAnswer))
}

// Exec runs a command that must succeed, and returns its standard output.
func (c *Client) Exec(id string, command ...string) string {
	c.t.Helper()
	answer, err := c.ExecSync(id, execLimit, command...)
	c.Must("exec "+strings.Join(command, " "), err)
	if answer.ExitCode != 0 {
		c.t.Fatalf("exec %s: exit code %d: %s", strings.Join(command, " "), answer.ExitCode, answer.Stderr)
	}
	return string(answer.Stdout)
}
