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

// layerMounts are the EROFS images that an agent has mounted.
func (n *node) layerMounts() []string {
	n.t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	n.Must("read mounts", err)
	var list []string
	for line := range strings.SplitSeq(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], filepath.Join(n.State, "layers")+"/") {
			list = append(list, fields[4])
		}
	}
	return list
}

// writesAndReads runs a container that sees its image and may write.
func (n *node) writesAndReads(pod string, config *runtimeapi.PodSandboxConfig, name string) {
	n.t.Helper()
	c := n.Started(pod, config, pods.Shell(name, "echo new > /new && sleep 1000"))
	testenv.Eventually(n.t, eventLimit, "the container writes", func() error {
		if got := n.Exec(c, "sh", "-c", "cat /new || true"); got != "new\n" {
			return os.ErrNotExist
		}
		return nil
	})
	if got := n.Exec(c, "sh", "-c", "ls /bin | wc -l"); strings.TrimSpace(got) == "0" {
		n.t.Error("the image is empty")
	}
}

// Pods on EROFS: what they write, restarts of the agent, user namespaces, and nothing that stays mounted.
func TestErofs(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{Config: `snapshotter = "erofs"`})
	n.Pull(images.Busybox)
	if found := n.layerMounts(); len(found) > 0 {
		t.Errorf("mounted before a container needs it: %q", found)
	}
	config := n.podConfig("erofs")
	pod := n.RunPod(config)
	n.writesAndReads(pod, config, "first")
	if found := n.layerMounts(); len(found) == 0 {
		t.Error("the layers are not mounted as images")
	}
	n.Kill9()
	n.Start()
	n.writesAndReads(pod, config, "second")
	n.RemovePod(pod)

	mapped := n.podConfig("mapped")
	mapped.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{
		UsernsOptions: &runtimeapi.UserNamespace{
			Mode: runtimeapi.NamespaceMode_POD,
			Uids: []*runtimeapi.IDMapping{{HostId: 200000, Length: 65536}}, Gids: []*runtimeapi.IDMapping{{HostId: 200000, Length: 65536}},
		},
	}}
	pod = n.RunPod(mapped)
	container := pods.Shell("mapped", "sleep 1000")
	container.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: mapped.Linux.SecurityContext.NamespaceOptions}
	c := n.Started(pod, mapped, container)
	if got := n.Exec(c, "stat", "-c", "%u", "/bin/sh"); strings.TrimSpace(got) != "0" {
		t.Errorf("in a user namespace the image is owned by %s", got)
	}
	n.RemovePod(pod)
	if found := n.layerMounts(); len(found) > 0 {
		t.Errorf("mounted with no container left: %q", found)
	}
}

// A runtime handler's pods have their images in its snapshotter, even when the image was pulled for others.
func TestSnapshotterOfHandler(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{Config: "[handlers.fast]\nsnapshotter = \"erofs\"\n"})
	n.Pull(images.Busybox)
	ctx, cancel := n.Context()
	defer cancel()
	config := n.podConfig("fast")
	answer, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: "fast"})
	n.Must("run pod", err)
	n.writesAndReads(answer.PodSandboxId, config, "a")
	if found := n.layerMounts(); len(found) == 0 {
		t.Error("the layers are not mounted as images")
	}
	_, err = n.Images().PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: images.Busybox, RuntimeHandler: "fast"}})
	n.Must("pull for the handler", err)
	n.RemovePod(answer.PodSandboxId)
	usual := n.podConfig("usual")
	pod := n.RunPod(usual)
	n.writesAndReads(pod, usual, "a")
	if found := n.layerMounts(); len(found) > 0 {
		t.Errorf("a pod of the usual handler uses images: %q", found)
	}
	n.RemovePod(pod)
}

// A flipped bit is found by nodectl, and fetched again.
func TestStoreVerify(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	if out := n.Nodectl("store", "verify"); out.Code != 0 || !strings.Contains(out.Stdout, "Nothing is damaged.") {
		t.Errorf("%+v", out)
	}
	shells, err := filepath.Glob(filepath.Join(n.Root, "snapshots/*/fs/*bin/busybox"))
	more, _ := filepath.Glob(filepath.Join(n.Root, "snapshots/*/fs/usr/bin/busybox"))
	n.Must("find a file", err)
	shells = append(shells, more...)
	if len(shells) == 0 {
		t.Fatal("no shell in the layers")
	}
	data, err := os.ReadFile(shells[0])
	n.Must("read", err)
	data[len(data)/2] ^= 1
	n.Must("write", os.WriteFile(shells[0], data, 0o755))
	if out := n.Nodectl("store", "verify"); out.Code != 1 || !strings.Contains(out.Stdout, "busybox") {
		t.Errorf("damaged: %+v", out)
	}
	if out := n.Nodectl("store", "verify", "--repair"); out.Code != 0 || !strings.Contains(out.Stdout, "repaired") {
		t.Errorf("repair: %+v", out)
	}
	if out := n.Nodectl("store", "verify", "-q"); out.Code != 0 || out.Stdout != "" {
		t.Errorf("afterwards: %+v", out)
	}
}
