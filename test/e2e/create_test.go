package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// A create that kubelet repeats, because its own call timed out, joins the one that is under way: one pod, one ID.
func TestRepeatedCreateJoins(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
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
	n.RemovePod(ids[0])
}

// While a plugin of the network hangs, calls that kubelet repeats end with their deadlines and say at which stage it is;
// they all wait for the one pod, which is there once the plugin answers.
func TestRepeatedCreateWhileAPluginHangs(t *testing.T) {
	conf, bin := t.TempDir(), t.TempDir()
	plugin := fmt.Sprintf(`#!/bin/sh
cat >/dev/null; echo $CNI_COMMAND >>%[1]s/calls; [ $CNI_COMMAND = ADD ] || exit 0
while [ ! -e %[1]s/answer ]; do sleep 0.02; done
echo '{"cniVersion":"1.0.0","ips":[{"address":"10.11.12.13/24"}]}'
`, bin)
	if err := os.WriteFile(filepath.Join(bin, "hanging"), []byte(plugin), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(conf, "10.conflist"), []byte(`{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"hanging"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, testenv.AgentOptions{CNIConfDir: conf, CNIBinDir: bin})
	config := n.podConfig("hanging")
	const limit = 3 * time.Second
	var told atomic.Int32
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			began := time.Now()
			_, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
			// On a busy machine some clients may give up before they are told.
			if strings.Contains(err.Error(), `run pod e2e/hanging: still at stage "network" for`) {
				told.Add(1)
			}
		})
	}
	wait.Wait()
	if told.Load() == 0 {
		t.Error("nobody is told at which stage it is")
	}
	if pods := n.listPods(); len(pods) > 1 {
		t.Errorf("%d pods", len(pods))
	}
	touch(t, bin, "answer")
	pod := n.RunPod(config)
	calls, err := os.ReadFile(filepath.Join(bin, "calls"))
	if err != nil || strings.Count(string(calls), "ADD") != 1 {
		t.Errorf("the plugin was called: %q, %v", calls, err)
	}
	if pods := n.listPods(); len(pods) != 1 || n.PodStatus(pod).Network.Ip != "10.11.12.13" {
		t.Errorf("%d pods, at %s", len(pods), n.PodStatus(pod).Network.Ip)
	}
	n.RemovePod(pod)
	if calls, err = os.ReadFile(filepath.Join(bin, "calls")); err != nil || strings.Count(string(calls), "DEL") != 1 {
		t.Errorf("the plugin was called: %q, %v", calls, err)
	}
}

// No image is needed for a pod itself, and none appears.
func TestNoPauseImage(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	pod := n.RunPod(n.podConfig("bare"))
	ctx, cancel := n.Context()
	defer cancel()
	answer, err := n.Images().ListImages(ctx, &runtimeapi.ListImagesRequest{})
	n.Must("list images", err)
	if len(answer.Images) != 0 {
		t.Errorf("images: %v", answer.Images)
	}
	n.RemovePod(pod)
}

// A container's upper layer is mounted volatile, so that no unmount waits for the disk.
func TestUpperLayerIsVolatile(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("volatile")
	pod := n.RunPod(config)
	n.Started(pod, config, pods.Shell("volatile", "sleep 1000"))
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(n.State))
	n.Must("read mounts", err)
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
	n.RemovePod(pod)
}

// Exit codes, signals and the kill for want of memory are told apart.
func TestExits(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("exits")
	pod := n.RunPod(config)
	hungry := pods.Shell("hungry", "dd if=/dev/zero of=/dev/null bs=64M")
	hungry.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 20, MemorySwapLimitInBytes: 16 << 20}
	for _, test := range []struct {
		config *runtimeapi.ContainerConfig
		code   int32
		reason string
	}{
		{pods.Shell("good", "true"), 0, "Completed"}, {pods.Shell("bad", "exit 3"), 3, "Error"},
		{pods.Shell("signalled", "kill -TERM $$"), 143, "Error"}, {hungry, 137, "OOMKilled"},
	} {
		status := n.Ended(n.Started(pod, config, test.config))
		if status.ExitCode != test.code || status.Reason != test.reason {
			t.Errorf("%s: exit code %d, reason %s", test.config.Metadata.Name, status.ExitCode, status.Reason)
		}
	}
	n.RemovePod(pod)
}
