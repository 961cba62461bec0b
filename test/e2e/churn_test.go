package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/leak"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// soak tells whether tests shall take the time that what they look for needs to show (make soak).
func soak() bool { return os.Getenv("NODEAGENT_TEST_SOAK") == "yes" }

const (
	// churnPerPod containers are in each pod, and churnWorkers pods there at one time.
	churnPerPod  = 4
	churnWorkers = 4
	// growthMB is how much the memory of a process may grow after it has warmed up, in megabytes: what a garbage
	// collected heap differs by from one moment to another, far below what a kilobyte for each container would be.
	growthMB = 8
)

// Containers come and go, some by themselves and some killed, and so does the agent; another process has a copy of the
// mounts, as udevd does. Nothing of theirs stays: no snapshot, mount, record, descriptor, memory. 10,000 of them with
// make soak.
func TestChurn(t *testing.T) {
	pods, kills := 24, 2
	if soak() {
		pods, kills = 10000/churnPerPod, 10
	}
	n := newNode(t, testenv.AgentOptions{Args: []string{"--log-level", "info"}})
	n.Pull(images.Busybox)
	c := &churn{node: n, storm: &storm{socket: "unix://" + n.Socket}}
	c.through(2*churnWorkers, 0)
	before, files := c.look()
	var pin *exec.Cmd
	c.midst = func() (err error) {
		pin, err = copyOfMounts()
		return err
	}
	c.through(pods*2/5, kills)
	if pin == nil {
		t.FailNow()
	}
	defer func() {
		_ = pin.Process.Kill()
		_ = pin.Wait()
	}()
	// From here on it is one process, whose memory can be compared.
	c.through(pods/5, 0)
	warm := c.memory()
	c.through(pods-pods*2/5-pods/5, 0)
	after := c.memory()
	t.Logf("%d containers; memory %v, and %v MB before the last 2/5", c.made.Load(), after, warm)
	for name := range after {
		if grown := after[name] - warm[name]; soak() && grown > growthMB {
			t.Errorf("%s has grown by %.1f MB", name, grown)
		}
	}
	// The agent of now, and who has the copy.
	ignored := []string{fmt.Sprintf("process: %d ", n.Pid()), fmt.Sprintf("process: %d ", pin.Process.Pid)}
	testenv.Eventually(t, eventLimit, "the machine is as it was", func() error {
		now, left := c.look()
		if more := before.Newer(now, ignored...); len(more) > 0 {
			return fmt.Errorf("left:\n%s", strings.Join(more, "\n"))
		}
		for name, count := range left {
			// What happened is noted in a ring of files.
			if count > files[name] && !strings.HasPrefix(name, "/root/recorder/") {
				return fmt.Errorf("%d files like %s, and %d before", count, name, files[name])
			}
		}
		return nil
	})
}

// copyOfMounts starts a process that has a copy of all mounts, those of containers among them.
func copyOfMounts() (*exec.Cmd, error) {
	pin := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "grep -c ' overlay ' /proc/self/mountinfo; exec sleep infinity")
	out, err := pin.StdoutPipe()
	if err == nil {
		err = pin.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("copy the mounts: %w", err)
	}
	var overlays int
	if _, err := fmt.Fscan(out, &overlays); err != nil || overlays == 0 {
		_ = pin.Process.Kill()
		return nil, fmt.Errorf("%d mounts of containers were copied: %w", overlays, errors.Join(err, pin.Wait()))
	}
	return pin, nil
}

// churn makes and removes pods of containers.
type churn struct {
	*node
	*storm
	made atomic.Int64
	// midst is called once, while pods run.
	midst func() error
	once  sync.Once
}

// through makes and removes so many pods, while the agent is killed a number of times.
func (c *churn) through(pods, kills int) {
	c.t.Helper()
	configs := make(chan *runtimeapi.PodSandboxConfig)
	var workers sync.WaitGroup
	for range churnWorkers {
		workers.Go(func() {
			for config := range configs {
				if err := c.pod(config); err != nil {
					c.t.Errorf("pod %s: %v", config.Metadata.Name, err)
				}
			}
		})
	}
	for i := range pods {
		configs <- c.podConfig("churn")
		if kills > 0 && i%(pods/kills) == pods/kills/2 {
			c.Kill9()
			c.Start()
		}
	}
	close(configs)
	workers.Wait()
}

// pod makes and removes one pod. What fails for want of an agent is repeated.
func (c *churn) pod(config *runtimeapi.PodSandboxConfig) error {
	config.LogDirectory = filepath.Join(c.logs, config.Metadata.Uid)
	defer os.RemoveAll(config.LogDirectory)
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	client := runtimeapi.NewRuntimeServiceClient(conn)
	var pod string
	err = c.repeat("run", func(ctx context.Context) error {
		answer, err := client.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config}, grpc.WaitForReady(true))
		pod = answer.GetPodSandboxId()
		return err
	})
	for i := 0; i < churnPerPod && err == nil; i++ {
		container := pods.Shell(fmt.Sprintf("c%d", i), []string{"echo something", "exec sleep 1000"}[i%2])
		err = c.container(client, pod, config, container)
	}
	if err != nil {
		return err
	}
	if c.midst != nil {
		c.once.Do(func() { err = c.midst() })
	}
	if err != nil {
		return err
	}
	err = c.repeat("stop", func(ctx context.Context) error {
		_, err := client.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod}, grpc.WaitForReady(true))
		return err
	})
	if err != nil {
		return err
	}
	return c.repeat("remove", func(ctx context.Context) error {
		_, err := client.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod}, grpc.WaitForReady(true))
		return err
	})
}

// container makes and starts one.
func (c *churn) container(client runtimeapi.RuntimeServiceClient, pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) error {
	var id string
	err := c.repeat("create", func(ctx context.Context) error {
		answer, err := client.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
			PodSandboxId: pod, Config: config, SandboxConfig: podConfig,
		}, grpc.WaitForReady(true))
		id = answer.GetContainerId()
		return err
	})
	if err != nil {
		return err
	}
	c.made.Add(1)
	return c.repeat("start", func(ctx context.Context) error {
		_, err := client.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id}, grpc.WaitForReady(true))
		if err == nil || status.Code(err) == codes.Unavailable {
			return err
		}
		// An agent that was killed may have started it before it could say so.
		answer, serr := client.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id}, grpc.WaitForReady(true))
		if serr == nil && answer.Status.State != runtimeapi.ContainerState_CONTAINER_CREATED {
			return nil
		}
		return errors.Join(err, serr)
	})
}

// identity is what tells the path of one object from that of another.
var identity = regexp.MustCompile(`[0-9a-f]{12,}|[0-9]+`)

// look takes what is on the machine, and counts the agent's files by their looks. Descriptors of the agent are not
// among the first, since there is another one after a kill.
func (c *churn) look() (leak.Snapshot, map[string]int) {
	c.t.Helper()
	machine, err := leak.Take()
	c.Must("look at the machine", err)
	for line := range machine {
		if strings.HasPrefix(line, "descriptor:") {
			delete(machine, line)
		}
	}
	files := map[string]int{}
	for name, pid := range c.processes() {
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		c.Must("look at descriptors", err)
		files["descriptors of "+name] = len(open)
	}
	for _, top := range []string{c.Root, c.State} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil {
				files[identity.ReplaceAllString(strings.TrimPrefix(path, c.Dir), "N")]++
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		c.Must("look at files", err)
	}
	return machine, files
}

// processes are the agent and its supervisor.
func (c *churn) processes() map[string]int {
	return map[string]int{"the agent": c.Pid(), "the supervisor": c.Supervisor()}
}

// memory is what both have of their own, in megabytes.
func (c *churn) memory() map[string]float64 {
	c.t.Helper()
	found := map[string]float64{}
	for name, pid := range c.processes() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		c.Must("read memory", err)
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "RssAnon:" {
				kb, _ := strconv.ParseFloat(fields[1], 64)
				found[name] = kb / 1000
			}
		}
	}
	return found
}
