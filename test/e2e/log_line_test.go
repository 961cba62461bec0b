package e2e

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// A line longer than what is configured is split, and is one line again for who reads the log by nodectl.
func TestLongestLogLine(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{Config: "max_log_line = 1024"})
	n.Pull(images.Busybox)
	config := n.podConfig("long")
	pod := n.RunPod(config)
	container := n.Started(pod, config, pods.Shell("long", "printf '%02500d\\n' 7"))
	n.Ended(container)
	var lengths []int
	for _, line := range n.logLines("long.log") {
		lengths = append(lengths, len(line))
	}
	if len(lengths) != 3 || lengths[0] != 1024 || lengths[1] != 1024 || lengths[2] != 452 {
		t.Errorf("lines of %d bytes", lengths)
	}
	if out := n.ctl("logs", "e2e/long/long"); out != strings.Repeat("0", 2499)+"7" {
		t.Errorf("logs: %d bytes", len(out))
	}
	n.RemovePod(pod)
}
