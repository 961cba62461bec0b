package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// The clean-up leaves an agent that runs alone; afterwards it ends every pod and unmounts every volume, and a purge
// removes all folders, but nothing of what a volume is of, though a link leads to the agent's root.
func TestCleanup(t *testing.T) {
	dir := t.TempDir()
	theirs, root := filepath.Join(dir, "theirs"), filepath.Join(dir, "link/root")
	for _, folder := range []string{theirs, filepath.Join(dir, "disk")} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	touch(t, theirs, "kept")
	if err := os.Symlink("disk", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, testenv.AgentOptions{Args: []string{"--root", root}})
	n.Pull(images.Busybox)
	config := n.podConfig("kubelet")
	pod := n.Started(n.RunPod(config), config, pods.Shell("main", "exec sleep 1000"))
	n.ctl("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device="+theirs, "bound")
	n.ctl("run", "-d", "--name", "person", "-v", "bound:/v", images.Busybox, "sleep", "1000")
	if out := n.ctl("exec", "person", "ls", "/v"); out != "kept" {
		t.Errorf("the volume has %s", out)
	}
	clean := func(args ...string) testenv.Output {
		return testenv.Run(t, testenv.Binary(t, "nodeagent"), append(append([]string{"cleanup"}, args...), n.Args()...)...)
	}
	if out := clean("--purge"); out.Code != 1 || !strings.Contains(out.Stderr, "another nodeagent uses it (process "+strconv.Itoa(n.Pid())+")") {
		t.Errorf("with the agent running: exit code %d: %s", out.Code, out.Stderr)
	}
	if state := n.Status(pod).State.String(); state != "CONTAINER_RUNNING" {
		t.Errorf("the container is %s", state)
	}
	n.Stop()
	for _, args := range [][]string{nil, {"--purge"}, {"--purge"}} {
		if out := clean(args...); out.Code != 0 {
			t.Errorf("cleanup %v: exit code %d: %s", args, out.Code, out.Stderr)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), filepath.Join(dir, "disk")) || strings.Contains(string(mounts), n.State) {
			t.Errorf("cleanup %v leaves mounts: %v", args, err)
		}
	}
	for _, folder := range []string{root, n.State} {
		if _, err := os.Lstat(folder); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", folder, err)
		}
	}
	if _, err := os.Stat(filepath.Join(theirs, "kept")); err != nil {
		t.Errorf("what the volume is of: %v", err)
	}
}
