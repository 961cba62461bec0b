package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs/pkg/errgrpc"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// node is a server over fakes, with clients of it.
type node struct {
	t          *testing.T
	ctx        context.Context
	sandboxes  *fakeSandboxes
	images     *fakeImages
	layers     *fakeLayers
	networks   *fakeNetworks
	server     *Server
	root       string
	containers nodev1.ContainersClient
	imagesAPI  nodev1.ImagesClient
	system     nodev1.SystemClient
	volumes    nodev1.VolumesClient
	events     nodev1.EventsClient
	conn       *grpc.ClientConn
	stop       func()
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, sandboxes: newFakeSandboxes(), images: newFakeImages(), layers: &fakeLayers{}, networks: &fakeNetworks{}, root: t.TempDir()}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	n.ctx = ctx
	t.Cleanup(func() {
		n.stop()
		cancel()
		for _, c := range n.sandboxes.Containers() {
			_ = n.sandboxes.RemoveContainer(context.Background(), c.ID)
		}
		n.sandboxes.running.Wait()
		goleak.VerifyNone(t)
	})
	n.serve()
	return n
}

// serve starts a server; stop ends it as the agent does.
func (n *node) serve() {
	n.t.Helper()
	s, err := New(Deps{
		Sandboxes: n.sandboxes, Images: n.images, Layers: n.layers, Networks: n.networks,
		Config: Config{Root: filepath.Join(n.root, "root"), State: filepath.Join(n.root, "state"), Volumes: filepath.Join(n.root, "volumes"), Version: "1.2.3"},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.server = s
	listener, err := net.Listen("unix", filepath.Join(n.root, fmt.Sprintf("%d.sock", time.Now().UnixNano())))
	if err != nil {
		n.t.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			s.Settle(ctx, path.Base(info.FullMethod), req)
			resp, err := h(ctx, req)
			return resp, errgrpc.ToGRPC(err)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return errgrpc.ToGRPC(h(srv, ss))
		}),
	)
	s.Register(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	conn, err := grpc.NewClient("unix://"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	n.conn = conn
	n.containers, n.imagesAPI, n.system = nodev1.NewContainersClient(conn), nodev1.NewImagesClient(conn), nodev1.NewSystemClient(conn)
	n.volumes, n.events = nodev1.NewVolumesClient(conn), nodev1.NewEventsClient(conn)
	n.stop = func() {
		_ = conn.Close()
		server.Stop()
		<-done
		s.Close()
	}
}

// create makes a container and returns its ID.
func (n *node) create(name string, spec *nodev1.ContainerSpec) string {
	n.t.Helper()
	resp, err := n.containers.Create(n.ctx, &nodev1.CreateRequest{Name: name, Spec: spec})
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.GetId()
}

func box(command ...string) *nodev1.ContainerSpec {
	return &nodev1.ContainerSpec{Image: "box", Command: command}
}

// attach attaches to a container and returns what it wrote and its exit code.
func (n *node) attach(start *nodev1.AttachStart, stdin string) (string, int32, error) {
	n.t.Helper()
	stream, err := n.containers.Attach(n.ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	_ = stream.Send(&nodev1.AttachRequest{Message: &nodev1.AttachRequest_Start{Start: start}})
	if stdin != "" {
		_ = stream.Send(&nodev1.AttachRequest{Message: &nodev1.AttachRequest_Stdin{Stdin: []byte(stdin)}})
		_ = stream.Send(&nodev1.AttachRequest{Message: &nodev1.AttachRequest_StdinClosed{StdinClosed: true}})
	}
	text := ""
	for {
		m, err := stream.Recv()
		if err != nil {
			return text, 0, err
		}
		text += string(m.GetOutput().GetData())
		if e, ok := m.GetMessage().(*nodev1.AttachResponse_Exit); ok {
			return text, e.Exit, nil
		}
	}
}

// wantError checks an error's code and words.
func wantError(t *testing.T, err error, code codes.Code, words string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), words) {
		t.Errorf("got %v, want %s: %s", err, code, words)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestAttachedRunGivesOutputAndExitCode(t *testing.T) {
	n := newNode(t)
	id := n.create("c1", box("echo", "hello"))
	text, code, err := n.attach(&nodev1.AttachStart{Container: id[:20], Start: true, Output: true}, "")
	if text != "hello\n" || code != 0 || err != nil {
		t.Errorf("got %q %d %v", text, code, err)
	}
	spec := box("cat")
	spec.Stdin = true
	n.create("c2", spec)
	text, _, err = n.attach(&nodev1.AttachStart{Container: "c2", Start: true, Stdin: true, Output: true}, "typed")
	if text != "typed" || err != nil {
		t.Errorf("got %q %v", text, err)
	}
	n.create("c3", box("size"))
	text, _, _ = n.attach(&nodev1.AttachStart{Container: "c3", Start: true, Output: true, Size: &nodev1.TerminalSize{Width: 90, Height: 20}}, "")
	if text != "90x20" {
		t.Errorf("got size %q", text)
	}
	n.create("c4", box("missing"))
	_, _, err = n.attach(&nodev1.AttachStart{Container: "c4", Start: true, Output: true}, "")
	wantError(t, err, codes.Unknown, "executable file not found")
	_, _, err = n.attach(&nodev1.AttachStart{Container: "c1", Output: true}, "")
	wantError(t, err, codes.FailedPrecondition, "You cannot attach to a stopped container")
}

func TestSelfRemoval(t *testing.T) {
	n := newNode(t)
	spec := box("exit", "7")
	spec.AutoRemove = true
	n.create("gone", spec)
	_, code, err := n.attach(&nodev1.AttachStart{Container: "gone", Start: true, Output: true}, "")
	if code != 7 || err != nil {
		t.Fatalf("got %d %v", code, err)
	}
	// The name is free at once.
	n.create("gone", spec)
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "gone"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a detached container removes itself", func() bool { return len(n.sandboxes.Containers())+len(n.sandboxes.Pods()) == 0 })
	broken := box("missing")
	broken.AutoRemove = true
	n.create("broken", broken)
	_, err = n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "broken"})
	wantError(t, err, codes.Unknown, "executable file not found")
	eventually(t, "one that cannot start removes itself", func() bool { return len(n.sandboxes.Pods()) == 0 })
	n.noFiles()
}

func TestSelfRemovalSurvivesTheAgent(t *testing.T) {
	n := newNode(t)
	spec := box("sleep")
	spec.AutoRemove = true
	id := n.create("short", spec)
	keep := n.create("keep", box("sleep"))
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	n.stop()
	// It ends, and a half-made pod and folder are left, while no agent runs.
	if err := n.sandboxes.KillContainer(n.ctx, id, "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	_, err := n.sandboxes.RunPod(n.ctx, sandbox.RunPodRequest{Owner: sandbox.OwnerNodectl, Config: &runtime.PodSandboxConfig{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(n.root, "root", "halfmade"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.serve()
	eventually(t, "only what is to stay is left", func() bool {
		entries, err := os.ReadDir(filepath.Join(n.root, "root"))
		return err == nil && len(entries) == 1 && len(n.sandboxes.Pods()) == 1 && len(n.sandboxes.Containers()) == 1
	})
	info, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: "keep"})
	if err != nil || info.GetContainer().GetId() != keep {
		t.Errorf("got %v %v", info, err)
	}
}

// noFiles checks that no container's files are left.
func (n *node) noFiles() {
	n.t.Helper()
	for _, parent := range []string{"root", "state"} {
		eventually(n.t, "no files left in "+parent, func() bool {
			entries, err := os.ReadDir(filepath.Join(n.root, parent))
			return err == nil && len(entries) == 0
		})
	}
}

func TestFailedCreationLeavesNothing(t *testing.T) {
	n := newNode(t)
	n.sandboxes.failCreate = errors.New("no space")
	_, err := n.containers.Create(n.ctx, &nodev1.CreateRequest{Name: "x", Spec: box()})
	wantError(t, err, codes.Unknown, "create container x: create container: no space")
	if len(n.sandboxes.Pods()) != 0 {
		t.Error("a pod is left")
	}
	n.noFiles()
	n.sandboxes.failCreate = nil
	n.create("x", box())
}

func TestNamesAndIDs(t *testing.T) {
	n := newNode(t)
	id := n.create("one", box())
	_, err := n.containers.Create(n.ctx, &nodev1.CreateRequest{Name: "one", Spec: box()})
	wantError(t, err, codes.AlreadyExists, `Conflict. The container name "/one" is already in use by container "`+id+`"`)
	_, err = n.containers.Create(n.ctx, &nodev1.CreateRequest{Name: "-bad", Spec: box()})
	wantError(t, err, codes.InvalidArgument, "Invalid container name (-bad)")
	random := n.create("", box())
	for _, name := range []string{"one", "/one", id, id[:62] + id[62:63]} {
		if name == id[:63] {
			continue // the fakes' IDs differ in their last digits only
		}
		info, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: name})
		if err != nil || info.GetContainer().GetId() != id {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err = n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: "cc"})
	wantError(t, err, codes.InvalidArgument, "multiple IDs found with provided prefix: cc")
	_, err = n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: "two"})
	wantError(t, err, codes.NotFound, "No such container: two")
	info, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: random})
	if err != nil || !namePattern.MatchString(info.GetContainer().GetName()) {
		t.Errorf("random name %q: %v", info.GetContainer().GetName(), err)
	}
}

func TestKubeletsContainers(t *testing.T) {
	n := newNode(t)
	pod, _ := n.sandboxes.RunPod(n.ctx, sandbox.RunPodRequest{Owner: sandbox.OwnerCRI, Config: &runtime.PodSandboxConfig{
		Metadata: &runtime.PodSandboxMetadata{Name: "dns-x", Namespace: "kube-system"},
	}})
	for _, name := range []string{"dns", "metrics"} {
		_, err := n.sandboxes.CreateContainer(n.ctx, sandbox.CreateContainerRequest{PodID: pod, Config: &runtime.ContainerConfig{
			Metadata: &runtime.ContainerMetadata{Name: name}, Image: &runtime.ImageSpec{Image: boxImage, UserSpecifiedImage: "box"}, Args: []string{"sleep"},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	list, err := n.containers.List(n.ctx, &nodev1.ListRequest{})
	if err != nil || len(list.GetContainers()) != 0 {
		t.Errorf("kubelet's containers are listed: %v %v", list, err)
	}
	list, err = n.containers.List(n.ctx, &nodev1.ListRequest{Pods: true})
	if err != nil || len(list.GetContainers()) != 2 || list.GetContainers()[0].GetPod().GetName() != "dns-x" || list.GetContainers()[0].GetImage() != "box" {
		t.Errorf("got %v %v", list, err)
	}
	info, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: "kube-system/dns-x/metrics"})
	if err != nil || info.GetContainer().GetName() != "metrics" {
		t.Errorf("got %v %v", info, err)
	}
	_, err = n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: "kube-system/dns-x"})
	wantError(t, err, codes.InvalidArgument, "has several containers")
	_, err = n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: "metrics"})
	wantError(t, err, codes.NotFound, "No such container: metrics")
}

func TestStopKillRemoveWait(t *testing.T) {
	n := newNode(t)
	spec := box("sleep")
	spec.StopTimeout = durationpb.New(3 * time.Second)
	id := n.create("c", spec)
	_, err := n.containers.Kill(n.ctx, &nodev1.KillRequest{Container: "c"})
	wantError(t, err, codes.FailedPrecondition, "cannot kill container: c: container "+id+" is not running")
	if _, err := n.containers.Stop(n.ctx, &nodev1.StopRequest{Container: "c"}); err != nil {
		t.Errorf("stop of a created container: %v", err)
	}
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "c"}); err != nil {
		t.Fatal(err)
	}
	_, err = n.containers.Remove(n.ctx, &nodev1.RemoveRequest{Container: "c"})
	wantError(t, err, codes.FailedPrecondition, `cannot remove container "/c": container is running: stop the container before removing or force remove`)
	_, err = n.containers.Kill(n.ctx, &nodev1.KillRequest{Container: "c", Signal: "NONSENSE"})
	wantError(t, err, codes.InvalidArgument, "invalid signal: NONSENSE")
	if _, err := n.containers.Stop(n.ctx, &nodev1.StopRequest{Container: "c"}); err != nil {
		t.Fatal(err)
	}
	c, _ := n.sandboxes.find(id)
	if c.stopTimeout != 3*time.Second {
		t.Errorf("stop waits %s", c.stopTimeout)
	}
	resp, err := n.containers.Wait(n.ctx, &nodev1.WaitRequest{Container: "c"})
	if err != nil || resp.GetExitCode() != 143 {
		t.Errorf("got %v %v", resp, err)
	}
	if _, err := n.containers.Remove(n.ctx, &nodev1.RemoveRequest{Container: "c"}); err != nil {
		t.Fatal(err)
	}
	n.noFiles()
}

func TestExec(t *testing.T) {
	n := newNode(t)
	n.create("c", box("sleep"))
	exec := func(start *nodev1.ExecStart, stdin string) (string, int32, error) {
		stream, err := n.containers.Exec(n.ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&nodev1.ExecRequest{Message: &nodev1.ExecRequest_Start{Start: start}})
		if stdin != "" {
			_ = stream.Send(&nodev1.ExecRequest{Message: &nodev1.ExecRequest_Stdin{Stdin: []byte(stdin)}})
			_ = stream.CloseSend()
		}
		text := ""
		for {
			m, err := stream.Recv()
			if err != nil {
				return text, 0, err
			}
			text += string(m.GetOutput().GetData())
			if e, ok := m.GetMessage().(*nodev1.ExecResponse_Exit); ok {
				return text, e.Exit, nil
			}
		}
	}
	_, _, err := exec(&nodev1.ExecStart{Container: "c", Command: []string{"cat"}}, "")
	wantError(t, err, codes.FailedPrecondition, "is not running")
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "c"}); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("0123456789", 20000)
	text, code, err := exec(&nodev1.ExecStart{Container: "c", Command: []string{"cat"}, Stdin: true}, big)
	if text != big || code != 5 || err != nil {
		t.Errorf("got %d bytes, %d, %v", len(text), code, err)
	}
	text, _, _ = exec(&nodev1.ExecStart{Container: "c", Command: []string{"env"}, Env: []string{"A=b"}, WorkingDir: "/w", User: "u", Privileged: true}, "")
	if text != "A=b /w u true" {
		t.Errorf("got %q", text)
	}
	_, _, err = exec(&nodev1.ExecStart{Container: "c", Command: []string{"missing"}}, "")
	wantError(t, err, codes.Unknown, "executable file not found")
	_, _, err = exec(&nodev1.ExecStart{Container: "c", Command: []string{"true"}, Detach: true}, "")
	if !errors.Is(err, io.EOF) {
		t.Errorf("detached: %v", err)
	}
}

func TestAttachToARunningOneAndLeave(t *testing.T) {
	n := newNode(t)
	id := n.create("c", box("sleep"))
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "c"}); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(n.ctx)
	stream, err := n.containers.Attach(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&nodev1.AttachRequest{Message: &nodev1.AttachRequest_Start{Start: &nodev1.AttachStart{Container: "c", Output: true}}})
	for text := ""; text != "joined"; {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		text += string(m.GetOutput().GetData())
	}
	leave()
	if c, err := n.sandboxes.Container(id); err != nil || c.State != sandbox.ContainerRunning {
		t.Errorf("got %v %v", c.State, err)
	}
}

func TestLogs(t *testing.T) {
	n := newNode(t)
	id := n.create("c", box("sleep"))
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "c"}); err != nil {
		t.Fatal(err)
	}
	c, _ := n.sandboxes.Container(id)
	f, err := os.Create(c.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, _ = f.WriteString("2026-01-02T03:04:05Z stdout F one\n2026-01-02T03:04:06Z stderr P tw\n")
	stream, err := n.containers.Logs(n.ctx, &nodev1.LogsRequest{Container: "c", Follow: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	read := func(upTo int) {
		t.Helper()
		for len(got) < upTo {
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range m.GetEntries() {
				got = append(got, fmt.Sprintf("%s:%s", e.GetStream(), e.GetData()))
			}
		}
	}
	read(2)
	_, _ = f.WriteString("2026-01-02T03:04:07Z stderr F o\n")
	if _, err := n.containers.Stop(n.ctx, &nodev1.StopRequest{Container: "c"}); err != nil {
		t.Fatal(err)
	}
	read(3)
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the log does not end: %v", err)
	}
	if want := []string{"STDOUT:one\n", "STDERR:tw", "STDERR:o\n"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPull(t *testing.T) {
	n := newNode(t)
	stream, err := n.imagesAPI.Pull(n.ctx, &nodev1.PullRequest{Ref: "box", Auth: &nodev1.Auth{Username: "me"}})
	if err != nil {
		t.Fatal(err)
	}
	var last *nodev1.PullProgress
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetResult() != nil {
			if m.GetResult().GetDigest() != "sha256:d" || !m.GetResult().GetNew() || last.GetStatus() != "Pull complete" {
				t.Errorf("got %v after %v", m, last)
			}
			break
		}
		last = m.GetProgress()
	}
	if n.images.pulled.Auth.Username != "me" {
		t.Error("credentials are lost")
	}
	for _, req := range []*nodev1.PullRequest{{Ref: "Bad Ref"}, {Ref: "box", Platform: "a/b/c/d/e"}} {
		stream, err := n.imagesAPI.Pull(n.ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		wantError(t, err, codes.InvalidArgument, "invalid")
	}
}

func TestImageRemoval(t *testing.T) {
	n := newNode(t)
	n.create("c", box("sleep"))
	remove := func(name string, force bool) (*nodev1.RemoveImageResponse, error) {
		return n.imagesAPI.Remove(n.ctx, &nodev1.RemoveImageRequest{Image: name, Force: force})
	}
	_, err := remove("nothing", false)
	wantError(t, err, codes.NotFound, "No such image: nothing:latest")
	_, err = remove("box", false)
	wantError(t, err, codes.FailedPrecondition, `conflict: unable to remove repository reference "box" (must force) - container cc0000000000 is using its referenced image aaaaaaaaaaaa`)
	_, err = remove("aaaa", false)
	wantError(t, err, codes.FailedPrecondition, "conflict: unable to delete aaaaaaaaaaaa (must be forced) - image is being used by stopped container")
	if _, err := remove("box", true); err != nil {
		t.Error(err)
	}
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "c"}); err != nil {
		t.Fatal(err)
	}
	_, err = remove("aaaa", true)
	wantError(t, err, codes.FailedPrecondition, "(cannot be forced) - image is being used by running container")
	_, err = remove("bbbb", false)
	wantError(t, err, codes.FailedPrecondition, "(must be forced) - image is referenced in multiple repositories")
	resp, err := remove("bbbb", true)
	if err != nil || len(resp.GetUntagged()) != 2 {
		t.Errorf("got %v %v", resp, err)
	}
}

func TestInfoAndVersion(t *testing.T) {
	n := newNode(t)
	n.create("c", box("sleep"))
	info, err := n.system.Info(n.ctx, &nodev1.InfoRequest{})
	if err != nil || info.GetContainers() != 1 || info.GetStopped() != 1 || info.GetImages() != 2 || info.GetImageBytes() != 7 ||
		!info.GetNetworkReady() || info.GetMemoryBytes() == 0 || info.GetVersion().GetVersion() != "1.2.3" {
		t.Errorf("got %v %v", info, err)
	}
	version, err := n.system.Version(n.ctx, &nodev1.VersionRequest{})
	if err != nil || version.GetVersion() != "1.2.3" || version.GetKernelVersion() == "" {
		t.Errorf("got %v %v", version, err)
	}
}
