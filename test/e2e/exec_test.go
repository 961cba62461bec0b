package e2e

import (
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// Of many probes that time out at the same moment none leaves a process behind, whichever of client, agent and
// supervisor finds its time over first.
func TestManyExecsTimeOut(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("probes")
	pod := n.RunPod(config)
	container := n.Started(pod, config, pods.Shell("probes", "exec tail -f /dev/null"))
	const probes = 64
	var wg sync.WaitGroup
	for range probes {
		wg.Go(func() {
			ctx, cancel := n.Context()
			defer cancel()
			_, err := n.Runtime().ExecSync(ctx, &runtimeapi.ExecSyncRequest{
				ContainerId: container, Timeout: 1,
				// A child of the same session, and one of another, which outlive their parent.
				Cmd: []string{"sh", "-c", "sleep 4321 & setsid sleep 4321 & exec sleep 4321"},
			})
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("a probe that should have timed out: %v", err)
			}
		})
	}
	wg.Wait()
	if left := n.Exec(container, "sh", "-c", "pgrep -l sleep || true"); left != "" {
		t.Errorf("left:\n%s", left)
	}
	n.RemovePod(pod)
}
