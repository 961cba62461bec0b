package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// A folder that containers have as their root filesystem, and what is mounted below it, is never removed nor unmounted,
// wherever the agent is killed.
func TestFolderSurvivesKills(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	root := filepath.Join(t.TempDir(), "root")
	n.ctl("create", "--name", "template", images.Busybox)
	n.ctl("cp", "template:/.", root)
	n.ctl("rm", "template")
	below := filepath.Join(root, "below")
	n.Must("make folder", os.Mkdir(below, 0o755))
	n.Must("mount", unix.Mount("below", below, "tmpfs", 0, ""))
	t.Cleanup(func() { n.Must("unmount", unix.Unmount(below, 0)) })
	for _, file := range []string{filepath.Join(root, "kept"), filepath.Join(below, "kept")} {
		n.Must("write", os.WriteFile(file, []byte("kept"), 0o600))
	}
	look := func(step string) {
		t.Helper()
		for _, file := range []string{filepath.Join(root, "kept"), filepath.Join(below, "kept"), filepath.Join(root, "bin/busybox")} {
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %v", step, err)
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		n.Must("read mounts", err)
		if strings.Contains(string(mounts), "/containers/") {
			t.Errorf("%s: something of a container is mounted", step)
		}
	}
	for _, step := range []string{"create.rootfs.after", "create.record.after", "start.rootfs.after", "start.supervisor.after", "remove.mounts.after", "remove.directory.after"} {
		n.Stop()
		t.Setenv("NODEAGENT_FAILPOINTS", step+"=exit")
		n.Start()
		t.Setenv("NODEAGENT_FAILPOINTS", "")
		n.Nodectl("run", "-d", "--name", "victim", "--rootfs", root, "sleep", "1000")
		n.Nodectl("rm", "-f", "victim")
		testenv.Eventually(t, eventLimit, step+" kills the agent", func() error {
			if !n.Exited() {
				return errors.New("it runs")
			}
			return nil
		})
		n.Stop()
		n.Start()
		n.Nodectl("rm", "-f", "victim")
		look(step)
	}
	if out := n.ctl("run", "--name", "last", "--rootfs", root, "cat", "/kept", "/below/kept"); out != "keptkept" {
		t.Error(out)
	}
	n.ctl("rm", "last")
	look("the end")
}
