package kubelet

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// eventLimit bounds each wait for something that kubelet does, which looks at its manifests once a second.
const eventLimit = time.Minute

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

// fixedFolder is where kubelet serves device plugins, whatever its flags say.
const fixedFolder = "/var/lib/kubelet"

// configuration has kubelet keep to folders and a cgroup of the test's, and leave the packet filter alone.
const configuration = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: %[1]s/manifests
podLogsDir: %[1]s/logs
containerRuntimeEndpoint: unix://%[2]s
cgroupRoot: %[3]s
port: %[4]d
address: 127.0.0.1
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
makeIPTablesUtilChains: false
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
readOnlyPort: 0
healthzPort: 0
evictionHard: {memory.available: 1Mi}
fileCheckFrequency: 1s
featureGates: {%[5]s}
`

// web has what kubelet does about a pod: an init container, limits, a probe by exec, a host port, a shared PID namespace.
const web = `apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  terminationGracePeriodSeconds: 2
  shareProcessNamespace: true
  initContainers:
  - {name: first, image: %[1]s, command: [sh, -c, "echo first of all > /shared/page"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: web
    image: %[1]s
    command: [sh, -c, "echo serving; while true; do { printf 'HTTP/1.0 200 OK\r\n\r\n'; cat /shared/page; } | nc -l -p 8080; done"]
    ports: [{containerPort: 8080, hostPort: %[2]d}]
    readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
    resources: {limits: {memory: 64Mi, cpu: 200m}}
    volumeMounts: [{name: shared, mountPath: /shared}]
  volumes: [{name: shared, emptyDir: {}}]
`

// sick has a container whose image is nowhere, and one whose liveness probe fails.
const sick = `apiVersion: v1
kind: Pod
metadata: {name: sick, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: lacking, image: "registry.k8s.io/no/such:1"}
  - {name: probed, image: %[1]s, command: [sleep, "1000"], livenessProbe: {exec: {command: ["false"]}, periodSeconds: 1, failureThreshold: 1}}
`

// node is an agent with a kubelet.
type node struct {
	*testenv.AgentProcess
	t    *testing.T
	dir  string
	port int
}

// newGates are features of kubelet that make another use of CRI, and are not yet on where nobody asks for them.
const newGates = "EventedPLEG: true, CRIListStreaming: true, PodAndContainerStatsFromCRI: true, ContainerStopSignals: true"

// A kubelet brings a pod up, reaches into it, keeps it over the agent's death, and takes it down again.
func TestStaticPod(t *testing.T) {
	testenv.Root(t)
	if testing.Short() {
		t.Skip("waits for kubelet's own pace")
	}
	t.Run("as it comes", func(t *testing.T) {
		testenv.Leaks(t)
		staticPod(t, newNode(t, ""), nil)
	})
	t.Run("with what comes next", func(t *testing.T) {
		testenv.Leaks(t)
		n := newNode(t, newGates)
		staticPod(t, n, func() {
			n.eventually("kubelet has the pod's metrics from the agent", func() error {
				return n.kubelet(http.MethodGet, "/metrics/cadvisor", `container_memory_working_set_bytes{`)
			})
			n.eventually("kubelet follows the agent's events", func() error {
				return n.kubelet(http.MethodGet, "/metrics", "kubelet_evented_pleg_connection_success_count 1")
			})
		})
	})
}

// staticPod is the life of two pods; more is what to ask while they run, or nil.
func staticPod(t *testing.T, n *node, more func()) {
	hostPort := freePort(t)
	n.write("manifests/web.yaml", fmt.Sprintf(web, images.Busybox, hostPort))

	n.write("manifests/sick.yaml", fmt.Sprintf(sick, images.Busybox))

	page := fmt.Sprintf("http://127.0.0.1:%d/", hostPort)
	n.eventually("the page is served", func() error { return says(page, "first of all") })
	n.eventually("kubelet runs a command in it", func() error {
		return n.kubelet(http.MethodPost, "/run/default/web-node/web?cmd="+url.QueryEscape("hostname"), "web-node")
	})
	n.eventually("kubelet shows its log", func() error {
		return n.kubelet(http.MethodGet, "/containerLogs/default/web-node/web", "serving")
	})
	n.eventually("kubelet sums its memory up", func() error {
		return n.kubelet(http.MethodGet, "/stats/summary", "workingSetBytes")
	})
	if more != nil {
		more()
	}
	before := n.running()

	n.Kill9()
	n.Start()
	n.eventually("the page is served by the same container", func() error {
		if err := says(page, "first of all"); err != nil {
			return err
		}
		if after := n.running(); after != before {
			return fmt.Errorf("containers %q, before: %q", after, before)
		}
		return nil
	})

	n.eventually("the pod that is sick is explained", func() error {
		out := strings.Join(strings.Fields(n.Nodectl("why", "default/sick-node").Stdout), " ")
		for _, want := range []string{"image registry.k8s.io/no/such:1: It could not be pulled", "its registry has no such image or tag",
			"probed: It was stopped: SIGTERM was sent to it by kubelet (PID ", `ran in it failed ("false": exit code 1): its liveness or startup probe`} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in %s", want, out)
			}
		}
		return nil
	})

	for _, name := range []string{"web", "sick"} {
		if err := os.Remove(filepath.Join(n.dir, "manifests", name+".yaml")); err != nil {
			t.Fatal(err)
		}
	}
	n.eventually("the pod is taken down", func() error {
		if ids := n.running(); ids != "" {
			return fmt.Errorf("%s still runs", ids)
		}
		return nil
	})
}

// newNode starts both, kubelet with the given feature gates; the clean-up takes kubelet down first.
func newNode(t *testing.T, gates string) *node {
	program := testenv.Tool(t, "kubelet")
	n := &node{t: t, dir: t.TempDir(), port: freePort(t)}
	n.AgentProcess = testenv.Agent(t, testenv.AgentOptions{Registry: testenv.Registry(t)})
	group := n.ownCgroup()
	for _, folder := range []string{"manifests", "logs", "root", "certs"} {
		if err := os.Mkdir(filepath.Join(n.dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.forgetFixedFolder()
	n.write("config.yaml", fmt.Sprintf(configuration, n.dir, n.Socket, group, n.port, gates))
	log, err := os.Create(filepath.Join(n.dir, "kubelet.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "--config", filepath.Join(n.dir, "config.yaml"), "--hostname-override", "node",
		"--root-dir", filepath.Join(n.dir, "root"), "--cert-dir", filepath.Join(n.dir, "certs"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.stopKubelet(cmd) })
	return n
}

// ownCgroup makes the cgroup that takes the place of the root for kubelet.
func (n *node) ownCgroup() string {
	n.t.Helper()
	manager, err := cgroups.New(cgroups.Config{Driver: cgroups.Cgroupfs})
	if err != nil {
		n.t.Fatal(err)
	}
	group := fmt.Sprintf("/nodeagent-test-kubelet-%d", os.Getpid())
	if err := manager.Create(n.t.Context(), group, nil); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), eventLimit)
		defer cancel()
		if err := manager.Remove(ctx, group); err != nil {
			n.t.Error(err)
		}
	})
	return group
}

// forgetFixedFolder has the folder removed that kubelet makes outside of its own, unless it was there before.
func (n *node) forgetFixedFolder() {
	if _, err := os.Lstat(fixedFolder); err == nil {
		return
	}
	n.t.Cleanup(func() {
		if err := os.RemoveAll(fixedFolder); err != nil {
			n.t.Error(err)
		}
	})
}

// stopKubelet ends kubelet, then the pods it would have kept, then the mounts it made.
func (n *node) stopKubelet(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if n.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(n.dir, "kubelet.log"))
		n.t.Logf("the end of kubelet's log:\n%s", log[max(0, len(log)-(4<<10)):])
	}
	ctx, cancel := context.WithTimeout(context.Background(), eventLimit)
	defer cancel()
	pods, err := n.Runtime().ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		n.t.Error(err)
	}
	for _, pod := range pods.GetItems() {
		if _, err := n.Runtime().RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
			n.t.Error(err)
		}
	}
	// kubelet binds its folder onto itself to share what is mounted below.
	for unix.Unmount(filepath.Join(n.dir, "root"), unix.MNT_DETACH) == nil {
	}
}

func (n *node) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) eventually(what string, condition func() error) {
	n.t.Helper()
	began := time.Now()
	testenv.Eventually(n.t, eventLimit, what, condition)
	n.t.Logf("%5.1f s until %s", time.Since(began).Seconds(), what)
}

// running gives the IDs of running containers.
func (n *node) running() string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), eventLimit)
	defer cancel()
	state := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	answer, err := n.Runtime().ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{State: state}})
	if err != nil {
		n.t.Fatal(err)
	}
	var ids []string
	for _, one := range answer.Containers {
		ids = append(ids, one.Id)
	}
	return strings.Join(ids, " ")
}

// kubelet asks kubelet's own server, whose certificate nobody signed.
func (n *node) kubelet(method, path, want string) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: eventLimit}
	request, err := http.NewRequest(method, fmt.Sprintf("https://127.0.0.1:%d%s", n.port, path), nil)
	if err != nil {
		return err
	}
	return answers(client.Do(request))(want)
}

// says checks what a page contains.
func says(page, want string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	return answers(client.Get(page))(want)
}

func answers(response *http.Response, err error) func(want string) error {
	return func(want string) error {
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
		if err == nil && !strings.Contains(string(body), want) {
			err = fmt.Errorf("%s: %.200q has no %q", response.Status, body, want)
		}
		return err
	}
}

// freePort is a port of the loopback address that nobody listens on now.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
