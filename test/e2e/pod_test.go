package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// callLimit bounds each call to the agent, eventLimit what a container does by itself.
const (
	callLimit  = pods.CallLimit
	eventLimit = pods.EventLimit
)

// node is an agent and what tests ask of it. A failed call ends the test unless the name of the method says that it
// returns the error.
type node struct {
	*pods.Client
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
	return &node{Client: pods.New(t, agent), t: t, logs: filepath.Join(agent.Dir, "logs")}
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

// logLines returns the text of each line of a CRI log, and fails the test on one that is not of its format.
func (n *node) logLines(name string) []string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.logs, name))
	n.Must("read log", err)
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
