package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// attempt creates and starts a container, one of which may fail, and returns its ID.
func (n *node) attempt(pod string, podConfig *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) string {
	id, err := n.CreateError(pod, podConfig, config)
	if err != nil {
		return ""
	}
	ctx, cancel := n.Context()
	defer cancel()
	_, _ = n.Runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id}) // why says how it failed
	return id
}

// programs makes a folder of programs that the kernel does not run.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	foreign, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	const machine = 18 // where an ELF header says which machine it is for
	foreign[machine], foreign[machine+1] = 0x16, 0x00
	for name, file := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"plain": {"#!/bin/sh\n", 0o644}, "lost": {"#!/no/such/shell\n", 0o755}, "foreign": {string(foreign), 0o755},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(file.text), file.mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Each way in which a container of kubelet's comes to nothing is named in plain words, by the container and by its pod.
func TestCausesOfContainers(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("web")
	pod := n.RunPod(config)
	dir := programs(t)
	limits := func(r *runtimeapi.LinuxContainerResources) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) { c.Linux.Resources = r }
	}
	security := func(s *runtimeapi.LinuxContainerSecurityContext) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext = s }
	}
	program := func(path string) func(*runtimeapi.ContainerConfig) {
		return func(c *runtimeapi.ContainerConfig) {
			c.Command, c.Mounts = []string{path}, []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/d"}}
		}
	}
	const eat = "(a=x; while true; do a=$a$a; done); "
	for _, test := range []struct {
		name, command string
		edit          func(*runtimeapi.ContainerConfig)
		want          string
	}{
		{"absent", "", program("/no/such"), "its program /no/such is not in the image"},
		{"plain", "", program("/d/plain"), "its program /d/plain may not be run"},
		{"lost", "", program("/d/lost"), "/d/lost is there, but the interpreter"},
		{"foreign", "", program("/d/foreign"), "/d/foreign was made for another kind of machine"},
		{"mount", "true", func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{HostPath: "/no/such/source", ContainerPath: "/mnt"}}
		}, "/no/such/source, which is to be mounted into it, is not on this node"},
		{"user", "true", security(&runtimeapi.LinuxContainerSecurityContext{RunAsUsername: "nobody-here"}), `the user "nobody-here", as which it is to run, is not in`},
		{"image", "true", func(c *runtimeapi.ContainerConfig) { c.Image.Image = "registry.k8s.io/never:1" }, "its image registry.k8s.io/never:1 is not on this node"},
		{"tiny", "true", limits(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 10}), "its memory limit is too small"},
		{"eater", "exec sh -c '" + eat + "'", limits(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 20}), "it used all of the memory it may have (16MiB)"},
		{"child", eat + "exit 3", limits(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 20}), "killed a process in it for want of memory"},
		// The threads of libcontainer's init count too, of which a busy machine lets there be five and more.
		{"forks", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 100 & done", limits(&runtimeapi.LinuxContainerResources{Unified: map[string]string{"pids.max": "10"}}), "It may have 10 processes and threads, and was refused more"},
		{"readonly", "echo x > /var/x || exit 1", security(&runtimeapi.LinuxContainerSecurityContext{ReadonlyRootfs: true}), "Read-only file system"},
		{"device", "true", func(c *runtimeapi.ContainerConfig) {
			c.Devices = []*runtimeapi.Device{{HostPath: "/dev/nothing", ContainerPath: "/dev/x", Permissions: "r"}}
		}, "the device /dev/nothing is not on this node"},
		{"seccomp", "true", security(&runtimeapi.LinuxContainerSecurityContext{Seccomp: &runtimeapi.SecurityProfile{
			ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/no/profile.json"}}), "its seccomp profile /no/profile.json is not on this node"},
		{"capability", "true", security(&runtimeapi.LinuxContainerSecurityContext{Capabilities: &runtimeapi.Capability{AddCapabilities: []string{"FLY"}}}), `there is no capability "FLY"`},
		{"cdi", "true", func(c *runtimeapi.ContainerConfig) {
			c.CDIDevices = []*runtimeapi.CDIDevice{{Name: "vendor.com/gpu=0"}}
		}, "the CDI device \"vendor.com/gpu=0\" is not known"},
	} {
		ctr := pods.Shell(test.name, test.command)
		if test.edit != nil {
			test.edit(ctr)
		}
		if id := n.attempt(pod, config, ctr); id != "" {
			n.Ended(id)
		}
		n.why("e2e/web/"+test.name, test.want)
		if out := n.Nodectl("why", "e2e/web/"+test.name); strings.Contains(out.Stdout, "Failed to write to log") {
			t.Errorf("what the runtime debugs is in the container's log: %s", out.Stdout)
		}
	}
	n.why("e2e/web", "There is trouble with 16 of its parts", "mount (", "gone): It could not be made: /no/such/source")

	killed := n.Started(pod, config, pods.Shell("killed", "exec sleep 1000"))
	if err := syscall.Kill(n.pid(killed), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.why("e2e/web/killed", "killed by SIGKILL, which the agent did not send, and neither did the kernel")
	var loop string
	for attempt := range uint32(3) {
		ctr := pods.Shell("loop", "exit 7")
		ctr.Metadata.Attempt = attempt
		loop = n.Started(pod, config, ctr)
		n.Ended(loop)
	}
	n.why(loop, "It was started 2 times before, and ended with exit code 7, 7.")
	n.Started(pod, config, pods.Shell("twice", "sleep 1000"))
	if _, err := n.CreateError(pod, config, pods.Shell("twice", "sleep 1")); err == nil {
		t.Fatal("two containers of one name and attempt")
	}
	n.why("e2e/web/twice", "call CreateContainer twice", "has this name and attempt")

	n.RemovePod(pod)
	n.Kill9()
	n.Start()
	n.why("e2e/web", "It was removed", "eater (", "it used all of the memory", "the one before it was killed, or crashed")
	if out := n.Nodectl("logs", "e2e/web/readonly"); out.Code != 1 || !strings.Contains(out.Stderr, "it was removed; what it wrote last is shown by: nodectl why e2e/web/readonly") {
		t.Errorf("logs of what was removed: %d %s", out.Code, out.Stderr)
	}
}

// A pod whose image cannot be had says so, and why, and a pod that was refused at once is known too.
func TestCausesOfPods(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	config := n.podConfig("web")
	pod := n.RunPod(config)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
			"digest":"sha256:%s","size":100,"platform":{"architecture":"s390x","os":"linux"}}]}`, strings.Repeat("cd", 32))
	}))
	defer other.Close()
	for _, test := range []struct{ ref, want string }{
		{"registry.k8s.io/no/such:image", "its registry has no such image or tag"},
		{testenv.PrivateRegistry(t).Host + "/a/b:1", "does not let this node have it"},
		{strings.TrimPrefix(other.URL, "http://") + "/a/b:1", "there is none for this kind of machine. The error: there is no image for this platform in the index: it has linux/s390x"},
	} {
		config := n.podConfig("lacks")
		id := n.RunPod(config)
		ctx, cancel := n.Context()
		_, err := n.Images().PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: test.ref}, SandboxConfig: config})
		cancel()
		if err == nil {
			t.Fatalf("%s was pulled", test.ref)
		}
		n.why("e2e/lacks", "image "+test.ref+": It could not be pulled", test.want)
		if out := n.Nodectl("why", "e2e/lacks/main"); out.Code != 1 || !strings.Contains(out.Stderr, "nobody asked for this container so far; of its pod tells: nodectl why e2e/lacks") {
			t.Errorf("why of a container that was not made: %d %s%s", out.Code, out.Stdout, out.Stderr)
		}
		n.RemovePod(id)
	}
	n.pullsInVain(config)
	refused := n.podConfig("refused")
	refused.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"a b\nc"}}
	if _, err := n.RunPodError(refused); err == nil {
		t.Fatal("a pod with a name server of two lines was made")
	}
	n.why("e2e/refused", "It could not be made", "is not one word")
	n.RemovePod(pod)
}

// While a CNI plugin hangs, ops names it and the pod it is run for; doctor tells of the last one that failed.
func TestCausesInTheNetwork(t *testing.T) {
	bin := t.TempDir()
	conf := t.TempDir()
	n := newNode(t, testenv.AgentOptions{CNIConfDir: conf, CNIBinDir: bin})
	plugin := func(name, text string) {
		t.Helper()
		list := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","plugins":[{"type":%q}]}`, name)
		n.Must("write plugin", os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\ncat >/dev/null; [ $CNI_COMMAND = DEL ] && exit 0\n"+text+"\n"), 0o755))
		n.Must("write configuration", os.WriteFile(filepath.Join(conf, "10.conflist"), []byte(list), 0o644))
		testenv.Eventually(t, eventLimit, "the configuration is noticed", func() error {
			if ready, why := n.networkReady(); !ready {
				return &notReadyError{why}
			}
			return nil
		})
	}
	plugin("failing", `echo '{"cniVersion":"1.0.0","code":100,"msg":"no route","details":"cable cut"}'; exit 1`)
	if _, err := n.RunPodError(n.podConfig("failing")); err == nil {
		t.Fatal("a pod without a network was made")
	}
	n.why("e2e/failing", "the CNI plugin failing failed. The error: plugin", "no route: cable cut")
	if out := n.Nodectl("doctor"); out.Code != 1 || !strings.Contains(out.Stdout, "the last pod that was to get a network") || !strings.Contains(out.Stdout, "cable cut") {
		t.Errorf("doctor: %d %s", out.Code, out.Stdout)
	}
	plugin("hanging", "exec sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("stuck")}); err == nil {
		t.Fatal("a pod was made while its plugin hangs")
	}
	out := n.ctl("ops")
	for _, want := range []string{"run pod", "e2e/stuck", "network", "the program hanging (PID "} {
		if !strings.Contains(out, want) {
			t.Errorf("ops: no %q in %s", want, out)
		}
	}
	n.why("e2e/stuck", "It is being made.", `Right now: run pod, at stage "network"`)
}

// pullsInVain has an image of a pod pulled from a registry that does not answer, and looks at what is told of that.
func (n *node) pullsInVain(config *runtimeapi.PodSandboxConfig) {
	n.t.Helper()
	slow := testenv.Faults(n.t, testenv.Registry(n.t).URL, testenv.Rule{Path: "/blobs/", Fault: testenv.Hang()})
	ref := slow.Host + "/e2e-test-images/busybox:1.29-2"
	ctx, cancel := n.Context()
	done := make(chan error, 1)
	go func() {
		_, err := n.Images().PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}, SandboxConfig: config})
		done <- err
	}()
	n.why("e2e/web", "Right now: pull of "+ref+", for ", "nodectl pulls")
	if out := n.ctl("ops"); !strings.Contains(out, "PullImage") || !strings.Contains(out, "e2e/web") {
		n.t.Errorf("ops: %s", out)
	}
	if out := n.ctl("pulls"); !strings.Contains(out, ref) {
		n.t.Errorf("pulls: %s", out)
	}
	cancel()
	if err := <-done; err == nil {
		n.t.Error("it was pulled")
	}
}
