package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

func touch(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// maxLayers is how many colons an error may have, those of a file's path and place and of the kernel's words among them.
const maxLayers = 6

// refused checks that the error is of the code, is one line, and names the thing.
func refused(t *testing.T, err error, code codes.Code, named string) {
	t.Helper()
	if err == nil {
		t.Fatal("it was not refused")
	}
	if got := status.Code(err); got != code {
		t.Errorf("code %s, want %s: %v", got, code, err)
	}
	text := status.Convert(err).Message()
	if !strings.Contains(text, named) || strings.Contains(text, "\n") {
		t.Errorf("the error does not name %q in one line: %s", named, text)
	}
	if strings.Count(text, ": ") > maxLayers {
		t.Errorf("the error has too many layers: %s", text)
	}
}

// What cannot be is refused with one clear error, and nothing half-made stays: the leak check of newNode looks.
func TestRefusals(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("refusals")
	pod := n.RunPod(config)

	t.Run("missing image to pull", func(t *testing.T) {
		refused(t, n.PullError("registry.k8s.io/no/such:image"), codes.NotFound, "registry.k8s.io/no/such:image")
	})
	t.Run("wrong reference", func(t *testing.T) {
		refused(t, n.PullError("UPPER/case:!!"), codes.InvalidArgument, "UPPER/case:!!")
	})
	t.Run("missing image for a container", func(t *testing.T) {
		missing := pods.Shell("missing", "true")
		missing.Image = &runtimeapi.ImageSpec{Image: "registry.k8s.io/never/pulled:1"}
		_, err := n.CreateError(pod, config, missing)
		refused(t, err, codes.NotFound, "registry.k8s.io/never/pulled:1")
	})
	t.Run("unknown sandbox", func(t *testing.T) {
		_, err := n.CreateError("nosuchsandbox", config, pods.Shell("orphan", "true"))
		refused(t, err, codes.NotFound, "nosuchsandbox")
		ctx, cancel := n.Context()
		defer cancel()
		_, err = n.Runtime().PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "nosuchsandbox"})
		refused(t, err, codes.NotFound, "nosuchsandbox")
	})
	t.Run("missing mount source", func(t *testing.T) {
		mounted := pods.Shell("mounted", "true")
		mounted.Mounts = []*runtimeapi.Mount{{HostPath: "/no/such/source", ContainerPath: "/mnt"}}
		_, err := n.CreateError(pod, config, mounted)
		refused(t, err, status.Code(err), "/no/such/source")
	})
	t.Run("unknown runtime handler", func(t *testing.T) {
		ctx, cancel := n.Context()
		defer cancel()
		_, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("handler"), RuntimeHandler: "nosuchhandler"})
		refused(t, err, status.Code(err), "nosuchhandler")
	})
	t.Run("program that is not there", func(t *testing.T) {
		absent := pods.Shell("absent", "true")
		absent.Command = []string{"/no/such/program"}
		id := n.Create(pod, config, absent)
		ctx, cancel := n.Context()
		defer cancel()
		_, err := n.Runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
		refused(t, err, status.Code(err), "/no/such/program")
		if state := n.Status(id).State; state != runtimeapi.ContainerState_CONTAINER_EXITED {
			t.Errorf("it is %s", state)
		}
	})
	n.RemovePod(pod)
	if left := n.listPods(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A CNI configuration that cannot be read makes the network not ready, and says which file; once it is good, pods run.
func TestBadNetworkConfiguration(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "10-bad.conflist")
	if err := os.WriteFile(bad, []byte(`{"cniVersion": "1.0.0", "name": "bad", "plugins": [`), 0o644); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, testenv.AgentOptions{CNIConfDir: dir, CNIBinDir: testenv.CNIPlugins(t)})
	ready, why := n.networkReady()
	if ready || !strings.Contains(why, "10-bad.conflist") {
		t.Errorf("ready: %v, because: %q", ready, why)
	}
	_, err := n.RunPodError(n.podConfig("unconnected"))
	refused(t, err, status.Code(err), "10-bad.conflist")
	if left := n.listPods(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if err := os.WriteFile(bad, []byte(conflist("good", "e2ebr0", "10.235.0.0/24", filepath.Join(n.Dir, "ipam"))), 0o644); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 10*time.Second, "the corrected file is noticed", func() error {
		if ready, why := n.networkReady(); !ready {
			return &notReadyError{why}
		}
		return nil
	})
	pod := n.RunPod(n.podConfig("connected"))
	n.RemovePod(pod)
	n.deleteLink("e2ebr0")
}

type notReadyError struct{ why string }

func (e *notReadyError) Error() string { return e.why }

// networkReady asks for the condition that kubelet reads.
func (n *node) networkReady() (ready bool, why string) {
	n.t.Helper()
	ctx, cancel := n.Context()
	defer cancel()
	answer, err := n.Runtime().Status(ctx, &runtimeapi.StatusRequest{})
	n.Must("status", err)
	for _, one := range answer.Status.Conditions {
		if one.Type == "NetworkReady" {
			return one.Status, one.Reason + " " + one.Message
		}
	}
	n.t.Fatal("status has no condition NetworkReady")
	return false, ""
}

// A second agent on the socket of a first gives up, names the socket, and the first one goes on.
func TestSocketInUse(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	dir := t.TempDir()
	out := testenv.Run(t, testenv.Binary(t, "nodeagent"), "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"),
		"--listen", "unix://"+n.Socket, "--cgroup-parent", n.CgroupParent+"-second", "--supervisor", testenv.Binary(t, "nodesupervisor"))
	if out.Code == 0 || !strings.Contains(out.Stderr, n.Socket) {
		t.Errorf("exit code %d: %s", out.Code, out.Stderr)
	}
	if ready, why := n.networkReady(); !ready {
		t.Errorf("the first agent is not ready: %s", why)
	}
}

// A second agent in the cgroup of a first gives up and names it: each removes what is below its own.
func TestCgroupInUse(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	out := testenv.Run(t, testenv.Binary(t, "nodeagent"), "--root", root, "--state", filepath.Join(dir, "state"), "--listen", "unix://"+filepath.Join(dir, "s"),
		"--cgroup-parent", n.CgroupParent, "--supervisor", testenv.Binary(t, "nodesupervisor"))
	if out.Code == 0 || !strings.Contains(out.Stderr, "cgroup_parent: another nodeagent uses "+n.CgroupParent) {
		t.Errorf("exit code %d: %s", out.Code, out.Stderr)
	}
	if _, err := os.Stat(root); err == nil {
		t.Errorf("%s is left", root)
	}
}

// Without root the agent says so at once.
func TestNoRoot(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir, err := os.MkdirTemp("", "na-noroot-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "nodeagent")
	binary, err := os.ReadFile(testenv.Binary(t, "nodeagent"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	out := testenv.Run(t, testenv.Program(t, "setpriv", "util-linux"), "--reuid=65534", "--regid=65534", "--clear-groups", "--",
		program, "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"))
	if out.Code == 0 || !strings.Contains(out.Stderr, "root") || strings.Count(strings.TrimSpace(out.Stderr), "\n") > 0 {
		t.Errorf("exit code %d: %s", out.Code, out.Stderr)
	}
}
