package cve

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

const (
	// callLimit bounds each call to the agent, eventLimit what happens by itself.
	callLimit  = pods.CallLimit
	eventLimit = pods.EventLimit
	// userID is the host's ID of root in the pods that have a user namespace.
	userID = 500000
)

// node is the shared agent and what one test asks of it. A failed call ends the test unless the name of the method says
// that it returns the error.
type node struct {
	*pods.Client
	t    *testing.T
	logs string // folder of the pods' logs
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

// idle is a container that does nothing until it is stopped.
func idle(name string) *runtimeapi.ContainerConfig { return pods.Shell(name, "exec sleep 1000") }

// volume mounts a folder of the host.
func volume(host, container string) *runtimeapi.Mount {
	return &runtimeapi.Mount{HostPath: host, ContainerPath: container}
}

// running is a container in a pod of its own.
func (n *node) running(config *runtimeapi.ContainerConfig) (id string, logs string) {
	n.t.Helper()
	pod := n.podConfig()
	return n.Started(n.RunPod(pod), pod, config), pod.LogDirectory
}

// goesOnRunning checks that a container that races with the agent has not given up.
func (n *node) goesOnRunning(container string) {
	n.t.Helper()
	if state := n.Status(container).State; state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		n.t.Errorf("the racer is %s", state)
	}
}

// logText returns what a container wrote according to its log files, put together again.
func (n *node) logText(paths ...string) string {
	n.t.Helper()
	var out strings.Builder
	for _, path := range paths {
		text, err := os.ReadFile(path)
		n.Must("read log", err)
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
