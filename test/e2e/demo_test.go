package e2e

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// demoLimit bounds the whole demo, which takes a second.
const demoLimit = 2 * time.Minute

// The README's first command shows a pod's status, log and address, and leaves nothing behind.
func TestDemo(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	ctx, cancel := context.WithTimeout(context.Background(), demoLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, testenv.Binary(t, "nodeagent"), "demo").CombinedOutput()
	if err != nil {
		t.Fatalf("nodeagent demo: %v\n%s", err, out)
	}
	for _, seen := range []string{"SANDBOX_READY", "CONTAINER_RUNNING", "Hello from pod", "stdout F listening", "Nothing: "} {
		if !strings.Contains(string(out), seen) {
			t.Errorf("it does not show %q:\n%s", seen, out)
		}
	}
}
