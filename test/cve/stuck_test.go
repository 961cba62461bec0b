package cve

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// slowLimit is how long the agent may take to log an operation that hangs: it waits ten seconds.
const slowLimit = 20 * time.Second

// While an operation hangs, nodectl ops and the agent's log name the container's pod, the stage, and the path in the
// kernel it waits for; nodectl why says that it is under way. None of that hangs itself.
func TestStuckOperationIsTold(t *testing.T) {
	n := newNode(t)
	hung := newHung(t)
	config := n.podConfig()
	pod := n.RunPod(config)
	ctr := idle("stuck")
	path := filepath.Join(hung.dir, "below")
	ctr.Mounts = []*runtimeapi.Mount{volume(path, "/below")}
	done := make(chan error, 1)
	began := time.Now()
	go func() {
		ctx, cancel := n.Context()
		defer cancel()
		_, err := n.Runtime().CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: ctr, SandboxConfig: config})
		done <- err
	}()
	name := config.GetMetadata().GetNamespace() + "/" + config.GetMetadata().GetName()
	testenv.Eventually(t, eventLimit, "nodectl ops names it", func() error {
		out := n.Nodectl("ops")
		for _, want := range []string{"create container", name, "mounts", "resolveMounts", fmt.Sprintf("(%q)", path), "cve.test (PID"} {
			if !strings.Contains(out.Stdout, want) {
				return fmt.Errorf("no %q in %s%s", want, out.Stdout, out.Stderr)
			}
		}
		return nil
	})
	if took := time.Since(began); took > quick {
		t.Errorf("that took %v", took)
	}
	if out := n.Nodectl("why", name); !strings.Contains(strings.Join(strings.Fields(out.Stdout), " "), "Right now: create container, at stage \"mounts\"") {
		t.Errorf("why: %s%s", out.Stdout, out.Stderr)
	}
	testenv.Eventually(t, slowLimit, "the log names it", func() error {
		log, err := os.ReadFile(n.LogPath)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, `still at stage \"mounts\" for 10s`) && strings.Contains(line, path) && strings.Contains(line, pod) {
				return nil
			}
		}
		return fmt.Errorf("it does not: %s", n.LogTail())
	})
	hung.release()
	if err := <-done; err == nil {
		t.Log("the container was made after all")
	}
	testenv.Eventually(t, eventLimit, "nothing is under way", func() error {
		if out := n.Nodectl("ops", "-q"); strings.TrimSpace(out.Stdout) != "" {
			return fmt.Errorf("ops: %s", out.Stdout)
		}
		return nil
	})
	if out := n.Nodectl("why", name); !strings.Contains(out.Stdout, "create container takes long: at stage") || !strings.Contains(out.Stdout, path) {
		t.Errorf("why: %s%s", out.Stdout, out.Stderr)
	}
}
