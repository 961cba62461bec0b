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
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// why says what nodectl why tells of something.
func (n *node) why(object string, wants ...string) {
	n.t.Helper()
	testenv.Eventually(n.t, eventLimit, "why "+object, func() error {
		out := n.Nodectl("why", object)
		for _, want := range wants {
			if !strings.Contains(strings.Join(strings.Fields(out.Stdout), " "), want) {
				return fmt.Errorf("no %q in %s%s", want, out.Stdout, out.Stderr)
			}
		}
		return nil
	})
}

// The story of a container is told while it is there, after the agent was killed, and after it was removed.
func TestWhy(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", "busybox")
	n.Nodectl("run", "--name", "failing", "busybox", "sh", "-c", "echo first; echo last words; exit 3")
	n.Nodectl("run", "--name", "greedy", "-m", "16m", "busybox", "sh", "-c", "a=x; while true; do a=$a$a; done")
	n.Nodectl("run", "--name", "lost", "busybox", "no-such-program")
	n.ctl("run", "-d", "--name", "deaf", "busybox", "sh", "-c", "trap '' TERM; while true; do sleep 1; done")
	n.why("failing", "ended with exit code 3", "Written last: first last words", "asked by nodectl (PID ", "plugin bridge ")
	n.why("greedy", "used all of the memory it may have (16MiB)", "memory peak 16MiB of 16MiB", "resources.limits.memory")
	n.why("lost", "executable file not found", "PATH")
	n.why("deaf", "It has been running for")

	n.Kill9()
	n.Start()
	n.ctl("stop", "-t", "1", "deaf")
	n.ctl("rm", "deaf", "failing")
	n.why("deaf", "It was removed", "SIGTERM was sent to it by nodectl (PID ", "was killed", "was started", "nodeagent 0.")
	n.why("failing", "It was removed", "ended with exit code 3", "Written last: first last words")
	if out := n.Nodectl("why", "nobody"); out.Code != 1 || out.Stderr != "Error: No such object: nobody\n" {
		t.Errorf("why nobody: %d %s", out.Code, out.Stderr)
	}
	n.ctl("rm", "greedy", "lost")
}

// kubelet's pods are told of by their names, and so are those that could not be made.
func TestWhyPod(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("web")
	pod := n.RunPod(config)
	n.Started(pod, config, pods.Shell("main", "echo up; exec sleep 1000"))
	n.why("e2e/web", "It is ready", "All is well: 1 container running", "main: start container, asked by e2e.test (PID ")
	n.why("e2e/web/main", "It has been running for", "Written last: up")
	for _, args := range [][]string{{"ps", "-n", "e2e"}, {"ps", "--pod", "web"}, {"pods"}} {
		if out := n.ctl(args...); !strings.Contains(out, "web") {
			t.Errorf("%v: %s", args, out)
		}
	}
	if out := n.ctl("ps"); strings.Contains(out, "web") {
		t.Errorf("a script sees kubelet's containers: %s", out)
	}
	if out := n.ctl("exec", "e2e/web", "echo", "inside"); out != "inside" {
		t.Errorf("exec: %s", out)
	}
	if out := n.ctl("logs", "e2e/web/main"); out != "up" {
		t.Errorf("logs: %s", out)
	}
	if out := n.ctl("stats", "--pods", "--no-stream"); !strings.Contains(out, "e2e/web") {
		t.Errorf("stats: %s", out)
	}
	if out := n.ctl("inspectp", "-f", "{{.status.metadata.name}} {{.status.state}}", "e2e/web"); out != "web SANDBOX_READY" {
		t.Errorf("inspectp: %s", out)
	}
	n.ctl("rmp", "-f", "e2e/web")
	n.why("e2e/web", "It was removed", "It was stopped", "by nodectl (PID ")

	// Without a usable network no pod can be made.
	if err := os.WriteFile(filepath.Join(n.CNIConfDir, "10-bad.conflist"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := n.podConfig("broken")
	ctx, cancel := n.Context()
	defer cancel()
	testenv.Eventually(t, 10*time.Second, "the configuration to be too old for one that is being written", func() error {
		_, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: broken})
		if err == nil {
			t.Fatal("a pod without a network was made")
		}
		if strings.Contains(err.Error(), "being written") {
			return err
		}
		return nil
	})
	n.why("e2e/broken", "It could not be made: none of the CNI configurations in", "10-bad.conflist", "nodectl doctor")
	if out := n.ctl("why"); !strings.Contains(out, "e2e/broken, ") || !strings.Contains(out, "none of the CNI configurations") || strings.Contains(out, "e2e/web") {
		t.Errorf("why: %s", out)
	}
	if out := n.Nodectl("doctor"); out.Code != 1 || !strings.Contains(out.Stdout, "10-bad.conflist") {
		t.Errorf("doctor: %d %s", out.Code, out.Stdout)
	}
}

// What belongs to no pod is found by doctor and taken away by it.
func TestDoctorFindsLeftovers(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", "busybox")
	n.ctl("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
	stray := filepath.Join(n.State, "sandboxes", strings.Repeat("ab", 32))
	if err := os.MkdirAll(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	out := n.Nodectl("doctor", "-q")
	if out.Code != 1 || !strings.Contains(out.Stdout, "abababababab") || strings.Count(out.Stdout, "leftovers") != 1 {
		t.Errorf("doctor: %d %s", out.Code, out.Stdout)
	}
}
