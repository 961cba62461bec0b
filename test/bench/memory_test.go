package bench

import (
	"context"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// Thirty pods add little to the memory of all processes of this project together.
func TestMemoryOfPods(t *testing.T) {
	testenv.Root(t)
	if testing.Short() {
		t.Skip("starts an agent and many pods")
	}
	testenv.Leaks(t)
	agent := testenv.Agent(t, testenv.AgentOptions{Registry: testenv.Registry(t), Args: []string{"--log-level", "info"}})
	p := newPeer(t, "nodeagent", agent.Dir, agent.Conn())
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	p.pod(ctx, t, true)
	p.measureMemory(ctx, t)
	t.Logf("%s: a pod adds %.3f MB", images.Busybox, p.perPodMB)
	if p.perPodMB > maxPodMB {
		t.Errorf("a pod adds %.2f MB, at most %.2f is allowed", p.perPodMB, maxPodMB)
	}
}
