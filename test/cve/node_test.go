package cve

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
	// callLimit bounds each call to the agent, eventLimit what happens by itself.
	callLimit  = time.Minute
	eventLimit = 20 * time.Second
	// userID is the host's ID of root in the pods that have a user namespace.
	userID = 500000
)

// node is the shared agent and what one test asks of it. A failed call ends the test unless the name of the method says
// that it returns the error.
type node struct {
	*testenv.AgentProcess
	t    *testing.T
	logs string // folder of the pods' logs

	mu   sync.Mutex
	made []string // pods to be removed
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
	ctx, cancel := n.context()
	defer cancel()
	_, err := n.Images().PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	n.must("pull "+image, err)
}

// podConfig makes the configuration of a pod that no other test of this process has. Each of its containers has a PID
// namespace of its own.
func (n *node) podConfig() *runtimeapi.PodSandboxConfig {
	shared.pods++
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(n.t.Name()))
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Uid: fmt.Sprintf("%s-%d", name, shared.pods), Namespace: "cve"},
		LogDirectory: filepath.Join(n.logs, fmt.Sprintf("%s-%d", name, shared.pods)),
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}
}

// mapped gives the pod a user namespace.
func mapped(config *runtimeapi.PodSandboxConfig) *runtimeapi.PodSandboxConfig {
	ids := []*runtimeapi.IDMapping{{HostId: userID, ContainerId: 0, Length: 65536}}
	config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
	return config
}

func (n *node) run(config *runtimeapi.PodSandboxConfig) string {
	n.t.Helper()
	id, err := n.runError(config)
	n.must("run pod", err)
	return id
}

func (n *node) runError(config *runtimeapi.PodSandboxConfig) (string, error) {
	ctx, cancel := n.context()
	defer cancel()
	answer, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
	if err == nil {
		n.made = append(n.made, answer.PodSandboxId)
	}
	return answer.GetPodSandboxId(), err
}

// removeAll removes the pods of the test.
func (n *node) removeAll() {
	for _, id := range n.made {
		ctx, cancel := n.context()
		if _, err := n.Runtime().RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			n.t.Errorf("remove pod: %v", err)
		}
		cancel()
	}
}

// shell is a container that runs a shell command in the busybox image, in the pod's user namespace if it has one.
func shell(name, command string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: images.Busybox},
		Command:  []string{"sh", "-c", command},
		LogPath:  name + ".log",
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}
}

// idle is a container that does nothing until it is stopped.
func idle(name string) *runtimeapi.ContainerConfig { return shell(name, "exec sleep 1000") }

// volume mounts a folder of the host.
func volume(host, container string) *runtimeapi.Mount {
	return &runtimeapi.Mount{HostPath: host, ContainerPath: container}
}

func (n *node) createError(pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) (string, error) {
	ctx, cancel := n.context()
	defer cancel()
	answer, err := n.Runtime().CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
	return answer.GetContainerId(), err
}

// startError creates and starts a container.
func (n *node) startError(pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) (string, error) {
	id, err := n.createError(pod, podConfig, config)
	if err != nil {
		return "", err
	}
	ctx, cancel := n.context()
	defer cancel()
	_, err = n.Runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	return id, err
}

func (n *node) started(pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) string {
	n.t.Helper()
	id, err := n.startError(pod, podConfig, config)
	n.must("start container "+config.Metadata.Name, err)
	return id
}

// running is a container in a pod of its own.
func (n *node) running(config *runtimeapi.ContainerConfig) (id string, logs string) {
	n.t.Helper()
	pod := n.podConfig()
	return n.started(n.run(pod), pod, config), pod.LogDirectory
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

// goesOnRunning checks that a container that races with the agent has not given up.
func (n *node) goesOnRunning(container string) {
	n.t.Helper()
	if state := n.status(container).State; state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		n.t.Errorf("the racer is %s", state)
	}
}

func (n *node) stop(container string) {
	n.t.Helper()
	ctx, cancel := n.context()
	defer cancel()
	_, err := n.Runtime().StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: container})
	n.must("stop container", err)
}

// execSync runs a command; timeout is in seconds. Answers may be as long as the agent gives them.
func (n *node) execSync(container string, timeout int64, command ...string) (*runtimeapi.ExecSyncResponse, error) {
	ctx, cancel := n.context()
	defer cancel()
	return n.Runtime().ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: command, Timeout: timeout},
		grpc.MaxCallRecvMsgSize(64<<20))
}

// exec runs a command that must succeed, and returns its standard output.
func (n *node) exec(container string, command ...string) string {
	n.t.Helper()
	answer, err := n.execSync(container, 30, command...)
	n.must("exec "+strings.Join(command, " "), err)
	if answer.ExitCode != 0 {
		n.t.Fatalf("exec %s: exit code %d: %s", strings.Join(command, " "), answer.ExitCode, answer.Stderr)
	}
	return string(answer.Stdout)
}

// logText returns what a container wrote according to its log files, put together again.
func (n *node) logText(paths ...string) string {
	n.t.Helper()
	var out strings.Builder
	for _, path := range paths {
		text, err := os.ReadFile(path)
		n.must("read log", err)
		for line := range strings.Lines(string(text)) {
			parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
			if len(parts) != 4 || (parts[2] != "P" && parts[2] != "F") {
				n.t.Fatalf("log line %.200q is not of CRI's format", line)
			}
			out.WriteString(parts[3])
			if parts[2] == "F" {
				out.WriteByte('\n')
			}
		}
	}
	return out.String()
}

// absent checks that nothing is at the path.
func absent(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("%s is there: %v", path, err)
	}
}

// write writes a file of the test.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// process finds what the kernel tells of a process.
func process(t *testing.T, pid int, file string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// descriptors counts the open files of a process.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// supervisor finds the agent's supervisor.
func (n *node) supervisor() int {
	n.t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	n.must("list processes", err)
	for _, path := range found {
		text, err := os.ReadFile(path)
		program, rest, _ := strings.Cut(string(text), "\x00")
		if err == nil && filepath.Base(program) == "nodesupervisor" && strings.Contains(rest, n.State) {
			var pid int
			fmt.Sscanf(path, "/proc/%d/", &pid)
			return pid
		}
	}
	n.t.Fatal("the agent has no supervisor")
	return 0
}

// memory is a line of /proc/PID/status, such as VmHWM, in bytes.
func memory(t *testing.T, pid int, field string) int {
	t.Helper()
	for line := range strings.Lines(process(t, pid, "status")) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			var kilobytes int
			fmt.Sscan(value, &kilobytes)
			return kilobytes << 10
		}
	}
	t.Fatalf("process %d has no %s", pid, field)
	return 0
}
