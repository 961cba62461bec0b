package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// Mounts are as they were asked for, an image's files among them, and a runtime handler's defaults hold.
func TestMountsAndHandler(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{Config: "[handlers.careful]\npids_limit = 77\n"})
	n.Pull(images.Busybox)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "program"), []byte("#!/bin/sh\necho ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := n.podConfig("mounts")
	ctx, cancel := n.Context()
	defer cancel()
	answer, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: "careful"})
	n.Must("run pod", err)
	ctr := pods.Shell("main", "sleep 1000")
	ctr.Mounts = []*runtimeapi.Mount{
		{HostPath: dir, ContainerPath: "/plain"},
		{HostPath: dir, ContainerPath: "/strict", MountOptions: []string{"noexec", "nosuid", "nodev"}},
		{Image: &runtimeapi.ImageSpec{Image: images.Busybox}, ContainerPath: "/image", ImageSubPath: "etc"},
	}
	id := n.Create(answer.PodSandboxId, config, ctr)
	n.start(id)
	for command, want := range map[string]string{
		"/plain/program":                      "ran",
		"/strict/program || echo refused":     "refused",
		"touch /image/x || echo refused":      "refused",
		"test -e /image/passwd && echo there": "there",
		"grep ' /strict ' /proc/mounts":       "nosuid,nodev,noexec",
	} {
		ctx, cancel := n.Context()
		out, err := n.Runtime().ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", command}, Timeout: 10})
		cancel()
		n.Must(command, err)
		if !strings.Contains(string(out.Stdout), want) {
			t.Errorf("%s: %q, %q", command, out.Stdout, out.Stderr)
		}
	}
	if got := limitFile(t, n.pid(id), "pids", "pids.max", "pids.max"); got != "77" {
		t.Errorf("its handler limits it to %s tasks", got)
	}
	status := n.Status(id)
	if ref := status.Mounts[2].Image.GetImageRef(); ref != status.ImageRef || !strings.Contains(ref, "@sha256:") {
		t.Errorf("the mounted image is told as %q, the container's as %q", ref, status.ImageRef)
	}
	if options := status.Mounts[1].MountOptions; len(options) != 3 {
		t.Errorf("mount options are told as %v", options)
	}
}
