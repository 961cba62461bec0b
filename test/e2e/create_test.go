package e2e

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/sys/mountinfo"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// A create that kubelet repeats, because its own call timed out, joins the one that is under way: one pod, one ID.
func TestRepeatedCreateJoins(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.pull(images.Busybox)
	config := n.podConfig("joined")
	// The first caller goes away at once; what it asked for goes on.
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_, _ = n.Runtime().RunPodSandbox(gone, &runtimeapi.RunPodSandboxRequest{Config: config})
	var wait sync.WaitGroup
	ids := make([]string, 4)
	for i := range ids {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), callLimit)
			defer cancel()
			answer, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
			if err != nil {
				t.Errorf("call %d: %v", i, err)
			}
			ids[i] = answer.GetPodSandboxId()
		})
	}
	wait.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("different pods: %q", ids)
		}
	}
	if pods := n.listPods(); len(pods) != 1 {
		t.Errorf("%d pods", len(pods))
	}
	n.remove(ids[0])
}

// No image is needed for a pod itself, and none appears.
func TestNoPauseImage(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	pod := n.run(n.podConfig("bare"))
	ctx, cancel := n.context()
	defer cancel()
	answer, err := n.Images().ListImages(ctx, &runtimeapi.ListImagesRequest{})
	n.must("list images", err)
	if len(answer.Images) != 0 {
		t.Errorf("images: %v", answer.Images)
	}
	n.remove(pod)
}

// A container's upper layer is mounted volatile, so that no unmount waits for the disk.
func TestUpperLayerIsVolatile(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.pull(images.Busybox)
	config := n.podConfig("volatile")
	pod := n.run(config)
	n.started(pod, config, shell("volatile", "sleep 1000"))
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(n.State))
	n.must("read mounts", err)
	overlays := 0
	for _, one := range found {
		if one.FSType != "overlay" {
			continue
		}
		overlays++
		// Newer kernels show it as fsync=volatile.
		options := strings.Split(one.VFSOptions, ",")
		if !slices.Contains(options, "volatile") && !slices.Contains(options, "fsync=volatile") {
			t.Errorf("%s has the options %s", one.Mountpoint, one.VFSOptions)
		}
	}
	if overlays != 1 {
		t.Errorf("%d overlay mounts", overlays)
	}
	n.remove(pod)
}

// Exit codes, signals and the kill for want of memory are told apart.
func TestExits(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.pull(images.Busybox)
	config := n.podConfig("exits")
	pod := n.run(config)
	hungry := shell("hungry", "dd if=/dev/zero of=/dev/null bs=64M")
	hungry.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 20, MemorySwapLimitInBytes: 16 << 20}
	for _, test := range []struct {
		config *runtimeapi.ContainerConfig
		code   int32
		reason string
	}{
		{shell("good", "true"), 0, "Completed"}, {shell("bad", "exit 3"), 3, "Error"},
		{shell("signalled", "kill -TERM $$"), 143, "Error"}, {hungry, 137, "OOMKilled"},
	} {
		status := n.exited(n.started(pod, config, test.config))
		if status.ExitCode != test.code || status.Reason != test.reason {
			t.Errorf("%s: exit code %d, reason %s", test.config.Metadata.Name, status.ExitCode, status.Reason)
		}
	}
	n.remove(pod)
}
