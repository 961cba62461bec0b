package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// On a disk without room for a byte or a file, containers are read, stopped and removed, and images too.
func TestDiskFull(t *testing.T) {
	testenv.Root(t)
	for what, fill := range map[string]func(*testenv.Disk){"bytes": (*testenv.Disk).Fill, "inodes": (*testenv.Disk).FillInodes} {
		t.Run(what, func(t *testing.T) {
			disk := testenv.NewDisk(t, 256<<20)
			n := newNode(t, testenv.AgentOptions{Args: []string{"--root", filepath.Join(disk.Dir, "root")}})
			n.logs = filepath.Join(disk.Dir, "logs")
			n.Pull(images.Busybox)
			config := n.podConfig("full")
			pod := n.RunPod(config)
			c := n.Started(pod, config, pods.Shell("talker", "echo hello; sleep 1000"))
			n.ctl("run", "-d", "--name", "mine", images.Busybox, "sleep", "1000")
			testenv.Eventually(t, eventLimit, "the container says hello", func() error {
				if out := n.Nodectl("logs", c); !strings.Contains(out.Stdout, "hello") {
					return fmt.Errorf("%+v", out)
				}
				return nil
			})
			fill(disk)

			if out := n.Nodectl("logs", c); out.Code != 0 || !strings.Contains(out.Stdout, "hello") {
				t.Errorf("logs: %+v", out)
			}
			n.StopContainer(c, 0)
			for _, args := range [][]string{{"stop", "-t", "0", "mine"}, {"rm", "mine"}} {
				if out := n.Nodectl(args...); out.Code != 0 {
					t.Errorf("%s: %+v", args, out)
				}
			}
			ctx, cancel := n.Context()
			defer cancel()
			_, err := n.Runtime().RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c})
			n.Must("remove container", err)
			n.RemovePod(pod)
			_, err = n.Images().RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: images.Busybox}})
			n.Must("remove image", err)
			if err := n.PullError(images.Busybox); err == nil {
				t.Log("the removed image made room for itself")
			}
			if out := n.Nodectl("image", "prune", "-a", "-f"); out.Code != 0 {
				t.Errorf("prune: %+v", out)
			}
			// The agent starts on it, too.
			n.Stop()
			n.Start()
		})
	}
}
