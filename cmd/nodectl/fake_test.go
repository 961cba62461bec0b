package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeAgent answers as the agent does, without running anything. Each field
// may be replaced; the default ones serve the world of newFakeAgent.
type fakeAgent struct {
	create  func(*nodev1.CreateRequest) (*nodev1.CreateResponse, error)
	start   func(*nodev1.StartRequest) (*nodev1.StartResponse, error)
	attach  func(nodev1.Containers_AttachServer) error
	exec    func(nodev1.Containers_ExecServer) error
	stop    func(*nodev1.StopRequest) error
	kill    func(*nodev1.KillRequest) error
	remove  func(*nodev1.RemoveRequest) error
	wait    func(*nodev1.WaitRequest) (int32, error)
	list    func(*nodev1.ListRequest) []*nodev1.Container
	inspect func(string) (*nodev1.InspectResponse, error)
	logs    func(*nodev1.LogsRequest) ([]*nodev1.LogEntry, error)
	pull    func(*nodev1.PullRequest, nodev1.Images_PullServer) error
	images  func() []*nodev1.Image
	info    func() *nodev1.InfoResponse
	// networkCreated is the last network that was asked for.
	networkCreated *nodev1.CreateNetworkRequest
	// files are those of containers, for cp.
	files string
	// readings counts those of statistics.
	readings atomic.Int32
}

// serve serves the fake on a socket until the test ends, and returns its host.
func (f *fakeAgent) serve(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "a.sock")
	f.files = filepath.Join(dir, "files")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	nodev1.RegisterContainersServer(server, fakeContainers{f: f})
	nodev1.RegisterImagesServer(server, fakeImages{f: f})
	nodev1.RegisterSystemServer(server, fakeSystem{f: f})
	nodev1.RegisterNetworksServer(server, fakeNetworks{f: f})
	nodev1.RegisterRegistriesServer(server, fakeRegistries{})
	nodev1.RegisterDebugServer(server, fakeDebug{})
	nodev1.RegisterStoreServer(server, fakeStore{})
	runtime.RegisterRuntimeServiceServer(server, fakePods{})
	nodev1.RegisterVolumesServer(server, fakeVolumes{})
	nodev1.RegisterEventsServer(server, fakeEvents{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return "unix://" + path
}

const (
	webID   = "1111111111111111111111111111111111111111111111111111111111111111"
	jobID   = "2222222222222222222222222222222222222222222222222222222222222222"
	newID   = "3333333333333333333333333333333333333333333333333333333333333333"
	podID   = "4444444444444444444444444444444444444444444444444444444444444444"
	boxID   = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	webHash = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	digest  = "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
)

// newFakeAgent makes a node with a running container "web", one "job" that
// ended with 3, and one of kubelet's; with the image busybox, and alpine in
// its registry. What is run is "echo WORDS", "cat", "exit CODE" or "missing".
func newFakeAgent() *fakeAgent {
	f := &fakeAgent{}
	local := map[string]bool{"busybox": true}
	f.create = func(req *nodev1.CreateRequest) (*nodev1.CreateResponse, error) {
		image := req.GetSpec().GetImage()
		if !local[image] {
			return nil, status.Errorf(codes.NotFound, "No such image: %s:latest", image)
		}
		if req.GetName() == "web" {
			return nil, status.Error(codes.AlreadyExists, `Conflict. The container name "/web" is already in use by container "`+webID+`". You have to remove (or rename) that container to be able to reuse that name.`)
		}
		f.attach = attachTo(req.GetSpec().GetCommand())
		return &nodev1.CreateResponse{Id: newID}, nil
	}
	f.pull = func(req *nodev1.PullRequest, stream nodev1.Images_PullServer) error {
		if !strings.Contains(req.GetRef(), "alpine") {
			return status.Error(codes.NotFound, "pull image "+req.GetRef()+": no such repository")
		}
		local["alpine"] = true
		for _, s := range []string{"Pulling fs layer", "Downloading", "Extracting", "Pull complete"} {
			_ = stream.Send(&nodev1.PullResponse{Message: &nodev1.PullResponse_Progress{Progress: &nodev1.PullProgress{
				Digest: "sha256:cccccccccccccccc", Status: s, Current: 512, Total: 1024,
			}}})
		}
		return stream.Send(&nodev1.PullResponse{Message: &nodev1.PullResponse_Result{
			Result: &nodev1.PullResult{Id: boxID, Digest: digest, New: true},
		}})
	}
	f.start = func(req *nodev1.StartRequest) (*nodev1.StartResponse, error) {
		if req.GetContainer() == newID {
			return &nodev1.StartResponse{Id: newID}, nil
		}
		info, err := f.inspect(req.GetContainer())
		return &nodev1.StartResponse{Id: info.GetContainer().GetId()}, err
	}
	f.stop = func(req *nodev1.StopRequest) error { _, err := f.inspect(req.GetContainer()); return err }
	f.remove = func(req *nodev1.RemoveRequest) error {
		if req.GetLink() && req.GetContainer() == "web/db" {
			return nil
		}
		info, err := f.inspect(req.GetContainer())
		if err == nil && info.GetContainer().GetState() == "running" && !req.GetForce() {
			return status.Errorf(codes.FailedPrecondition, "cannot remove container %q: container is running: stop the container before removing or force remove", "/"+info.GetContainer().GetName())
		}
		return err
	}
	f.kill = func(req *nodev1.KillRequest) error {
		info, err := f.inspect(req.GetContainer())
		if err == nil && info.GetContainer().GetState() != "running" {
			return status.Errorf(codes.FailedPrecondition, "cannot kill container: %s: container %s is not running", req.GetContainer(), info.GetContainer().GetId())
		}
		return err
	}
	f.wait = func(req *nodev1.WaitRequest) (int32, error) {
		info, err := f.inspect(req.GetContainer())
		return info.GetContainer().GetExitCode(), err
	}
	f.exec = func(stream nodev1.Containers_ExecServer) error {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if _, err := f.inspect(m.GetStart().GetContainer()); err != nil {
			return err
		}
		return execStream{stream}.play(m.GetStart().GetCommand())
	}
	f.attach = attachTo(nil)
	f.list, f.inspect, f.logs, f.images, f.info = fakeList, fakeInspect, fakeLogs, fakeImageList, fakeInfo
	return f
}

// before is a time that lists show in whole hours.
func before(hours int) *timestamppb.Timestamp {
	return timestamppb.New(time.Now().Add(-time.Duration(hours)*time.Hour - time.Minute))
}

func fakeList(req *nodev1.ListRequest) []*nodev1.Container {
	all := []*nodev1.Container{
		{
			Id: webID, Name: "web", Image: "busybox", ImageId: boxID, State: "running", Pid: 4242, NetworkMode: "bridge",
			Args: []string{"/bin/sh", "-c", "while true; do sleep 1; done"}, CreatedAt: before(2), StartedAt: before(2),
			Labels: map[string]string{"tier": "front", "com.example.team": "blue"},
			Ports: []*nodev1.Port{
				{ContainerPort: 8080, Protocol: "tcp", HostPort: 8081},
				{ContainerPort: 90, Protocol: "tcp", HostPort: 90, HostIp: "127.0.0.1"},
				{ContainerPort: 91, Protocol: "tcp", HostPort: 91, HostIp: "127.0.0.1"},
				{ContainerPort: 53, Protocol: "udp"},
			},
			Mounts: []*nodev1.Mount{{Source: "/srv/pages/of/the/site", Target: "/www", ReadOnly: true}, {Type: nodev1.Mount_TMPFS, Target: "/tmp"}},
		},
		{
			Id: jobID, Name: "job", Image: "docker.io/library/old:1", ImageId: webHash, State: "exited", ExitCode: 3, Reason: "Error",
			Args: []string{"job"}, CreatedAt: before(5), StartedAt: before(5), FinishedAt: before(4), NetworkMode: "host",
		},
	}
	if req.GetPods() {
		all = append(all, &nodev1.Container{
			Id: podID, Name: "dns", Image: "registry.k8s.io/coredns:v1", ImageId: webHash, State: "running", Args: []string{"coredns"},
			CreatedAt: before(20), StartedAt: before(20), NetworkMode: "bridge",
			Pod: &nodev1.Pod{Id: podID, Name: "coredns-x", Namespace: "kube-system", Uid: "u"},
		})
	}
	return all
}

func fakeInspect(name string) (*nodev1.InspectResponse, error) {
	for _, c := range fakeList(&nodev1.ListRequest{Pods: true}) {
		if c.GetName() != name && !strings.HasPrefix(c.GetId(), name) {
			continue
		}
		c.CreatedAt = timestamppb.New(time.Unix(1700000000, 5e8))
		c.StartedAt = c.CreatedAt
		return &nodev1.InspectResponse{
			Container: c, LogPath: "/log", PodId: podID, Env: []string{"A=b"}, StopSignal: "SIGTERM",
			Spec: &nodev1.ContainerSpec{
				Image: c.GetImage(), Hostname: "web", Mounts: c.GetMounts(),
				Network: &nodev1.Network{Mode: "bridge", Ports: c.GetPorts()}, Resources: &nodev1.Resources{MemoryBytes: 1 << 26},
			},
			Addresses: &nodev1.Addresses{Network: "bridge", Addresses: []string{"10.88.0.5/16"}, Gateway: "10.88.0.1", Mac: "02:00:00:00:00:05"},
			Endpoints: []*nodev1.Endpoint{{
				NetworkId: podID, NetworkName: "bridge", EndpointId: podID, Ipv4: "10.88.0.5/16", Gateway4: "10.88.0.1", Mac: "02:00:00:00:00:05",
			}},
		}, nil
	}
	return nil, status.Error(codes.NotFound, "No such container: "+name)
}

func fakeLogs(req *nodev1.LogsRequest) ([]*nodev1.LogEntry, error) {
	if _, err := fakeInspect(req.GetContainer()); err != nil {
		return nil, err
	}
	at := timestamppb.New(time.Unix(1700000000, 120))
	all := []*nodev1.LogEntry{
		{Time: at, Data: []byte("one\n")},
		{Time: at, Data: []byte("wrong\n"), Stream: nodev1.Output_STDERR},
		{Time: at, Data: []byte("tw")},
		{Time: at, Data: []byte("o\n")},
	}
	if req.GetTail() == 1 {
		all = all[2:]
	}
	return all, nil
}

func fakeImageList() []*nodev1.Image {
	return []*nodev1.Image{
		{
			Id: boxID, Tags: []string{"docker.io/library/busybox:latest", "127.0.0.1:5000/box:1"},
			Digests: []string{"docker.io/library/busybox@" + digest}, Size: 4_260_000, ContentSize: 2_000_000, CreatedAt: before(48),
			Platform: "linux/amd64", Manifest: digest, Containers: 1,
		},
		{Id: webHash, Size: 1_234_567_890, CreatedAt: before(80), Labels: map[string]string{"kind": "old"}},
	}
}

func fakeInfo() *nodev1.InfoResponse {
	return &nodev1.InfoResponse{
		Version:    &nodev1.VersionResponse{Version: "0.1.0", GoVersion: "go1", Os: "linux", Arch: "amd64", KernelVersion: "6.1", RuncVersion: "1.5.2", SupervisorVersion: "0.1.0"},
		Containers: 2, Running: 1, Stopped: 1, Images: 2, Snapshotter: "overlay", CgroupDriver: "cgroupfs", CgroupVersion: "v2",
		NetworkProblem: "no configuration", Warnings: []string{"network is not ready: no configuration"}, SupervisorPid: 77,
	}
}

// process is the server's side of Attach or Exec.
type process interface {
	attached() error
	output(nodev1.Output_Stream, string) error
	exit(int32) error
	// input returns io.EOF where the client closed its input.
	input() ([]byte, error)
}

type attachStream struct {
	s nodev1.Containers_AttachServer
}

func (a attachStream) attached() error {
	return a.s.Send(&nodev1.AttachResponse{Message: &nodev1.AttachResponse_Attached{Attached: &nodev1.Attached{Id: newID}}})
}

func (a attachStream) output(stream nodev1.Output_Stream, text string) error {
	return a.s.Send(&nodev1.AttachResponse{Message: &nodev1.AttachResponse_Output{Output: &nodev1.Output{Stream: stream, Data: []byte(text)}}})
}

func (a attachStream) exit(code int32) error {
	return a.s.Send(&nodev1.AttachResponse{Message: &nodev1.AttachResponse_Exit{Exit: code}})
}

func (a attachStream) input() ([]byte, error) {
	m, err := a.s.Recv()
	if m.GetStdinClosed() {
		err = io.EOF
	}
	return m.GetStdin(), err
}

type execStream struct{ s nodev1.Containers_ExecServer }

func (e execStream) attached() error {
	return e.s.Send(&nodev1.ExecResponse{Message: &nodev1.ExecResponse_Attached{Attached: &nodev1.Attached{Id: webID}}})
}

func (e execStream) output(stream nodev1.Output_Stream, text string) error {
	return e.s.Send(&nodev1.ExecResponse{Message: &nodev1.ExecResponse_Output{Output: &nodev1.Output{Stream: stream, Data: []byte(text)}}})
}

func (e execStream) exit(code int32) error {
	return e.s.Send(&nodev1.ExecResponse{Message: &nodev1.ExecResponse_Exit{Exit: code}})
}

func (e execStream) input() ([]byte, error) {
	m, err := e.s.Recv()
	if m.GetStdinClosed() {
		err = io.EOF
	}
	return m.GetStdin(), err
}

func (e execStream) play(command []string) error { return play(e, command) }

// attachTo serves Attach with a container that runs a command.
func attachTo(command []string) func(nodev1.Containers_AttachServer) error {
	return func(stream nodev1.Containers_AttachServer) error {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		return play(attachStream{stream}, command)
	}
}

// play does what a command would.
func play(p process, command []string) error {
	name := ""
	if len(command) > 0 {
		name = command[0]
	}
	switch name {
	case "missing":
		return status.Error(codes.Unknown, `start container: exec: "missing": executable file not found in $PATH`)
	case "/etc":
		return status.Error(codes.Unknown, `start container: exec: "/etc": permission denied`)
	}
	if err := p.attached(); err != nil {
		return err
	}
	switch name {
	case "echo":
		_ = p.output(nodev1.Output_STDOUT, strings.Join(command[1:], " ")+"\n")
	case "warn":
		_ = p.output(nodev1.Output_STDERR, "careful\n")
	case "exit":
		code, err := strconv.Atoi(command[1])
		if err != nil {
			return err
		}
		return p.exit(int32(code))
	case "cat":
		for {
			b, err := p.input()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			_ = p.output(nodev1.Output_STDOUT, string(b))
		}
	}
	return p.exit(0)
}

type fakeContainers struct {
	nodev1.UnimplementedContainersServer
	f *fakeAgent
}

func (s fakeContainers) Create(_ context.Context, r *nodev1.CreateRequest) (*nodev1.CreateResponse, error) {
	return s.f.create(r)
}

func (s fakeContainers) Start(_ context.Context, r *nodev1.StartRequest) (*nodev1.StartResponse, error) {
	return s.f.start(r)
}

func (s fakeContainers) Attach(stream nodev1.Containers_AttachServer) error {
	return s.f.attach(stream)
}

func (s fakeContainers) Exec(stream nodev1.Containers_ExecServer) error { return s.f.exec(stream) }

func (s fakeContainers) Stop(_ context.Context, r *nodev1.StopRequest) (*nodev1.StopResponse, error) {
	return &nodev1.StopResponse{}, s.f.stop(r)
}

func (s fakeContainers) Restart(_ context.Context, r *nodev1.RestartRequest) (*nodev1.RestartResponse, error) {
	_, err := s.f.inspect(r.GetContainer())
	return &nodev1.RestartResponse{}, err
}

func (s fakeContainers) Update(_ context.Context, r *nodev1.UpdateRequest) (*nodev1.UpdateResponse, error) {
	if r.GetResources().GetMemoryBytes() == 1 {
		return nil, status.Error(codes.InvalidArgument, "Minimum memory limit allowed is 6MB")
	}
	_, err := s.f.inspect(r.GetContainer())
	return &nodev1.UpdateResponse{}, err
}

func (s fakeContainers) Kill(_ context.Context, r *nodev1.KillRequest) (*nodev1.KillResponse, error) {
	return &nodev1.KillResponse{}, s.f.kill(r)
}

func (s fakeContainers) Remove(_ context.Context, r *nodev1.RemoveRequest) (*nodev1.RemoveResponse, error) {
	return &nodev1.RemoveResponse{}, s.f.remove(r)
}

func (s fakeContainers) Wait(_ context.Context, r *nodev1.WaitRequest) (*nodev1.WaitResponse, error) {
	code, err := s.f.wait(r)
	return &nodev1.WaitResponse{ExitCode: code}, err
}

func (s fakeContainers) List(_ context.Context, r *nodev1.ListRequest) (*nodev1.ListResponse, error) {
	return &nodev1.ListResponse{Containers: s.f.list(r)}, nil
}

func (s fakeContainers) Inspect(_ context.Context, r *nodev1.InspectRequest) (*nodev1.InspectResponse, error) {
	return s.f.inspect(r.GetContainer())
}

func (s fakeContainers) Logs(r *nodev1.LogsRequest, stream nodev1.Containers_LogsServer) error {
	entries, err := s.f.logs(r)
	if err != nil {
		return err
	}
	return stream.Send(&nodev1.LogsResponse{Entries: entries})
}

func (s fakeContainers) Pause(_ context.Context, r *nodev1.PauseRequest) (*nodev1.PauseResponse, error) {
	info, err := s.f.inspect(r.GetContainer())
	if err == nil && info.GetContainer().GetState() != "running" {
		err = status.Errorf(codes.FailedPrecondition, "container %s is not running", info.GetContainer().GetId())
	}
	return &nodev1.PauseResponse{}, err
}

func (s fakeContainers) Unpause(_ context.Context, r *nodev1.UnpauseRequest) (*nodev1.UnpauseResponse, error) {
	info, err := s.f.inspect(r.GetContainer())
	if err == nil {
		err = status.Errorf(codes.FailedPrecondition, "container %s is not paused", info.GetContainer().GetId())
	}
	return &nodev1.UnpauseResponse{}, err
}

func (s fakeContainers) Rename(_ context.Context, r *nodev1.RenameRequest) (*nodev1.RenameResponse, error) {
	_, err := s.f.inspect(r.GetContainer())
	if err == nil && r.GetName() == "job" {
		err = status.Errorf(codes.AlreadyExists, `Conflict. The container name "/job" is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.`, jobID)
	}
	return &nodev1.RenameResponse{}, err
}

func (s fakeContainers) Top(_ context.Context, r *nodev1.TopRequest) (*nodev1.TopResponse, error) {
	if len(r.GetArgs()) > 0 {
		return &nodev1.TopResponse{Titles: r.GetArgs()}, nil
	}
	_, err := s.f.inspect(r.GetContainer())
	return &nodev1.TopResponse{
		Titles:    []string{"UID", "PID", "CMD"},
		Processes: []*nodev1.Process{{Fields: []string{"root", "4242", "/bin/sh -c loop"}}, {Fields: []string{"root", "4243", "sleep 1"}}},
	}, err
}

func (s fakeContainers) Changes(_ context.Context, r *nodev1.ChangesRequest) (*nodev1.ChangesResponse, error) {
	_, err := s.f.inspect(r.GetContainer())
	return &nodev1.ChangesResponse{Changes: []*nodev1.Change{
		{Kind: nodev1.Change_MODIFIED, Path: "/etc"}, {Kind: nodev1.Change_DELETED, Path: "/etc/gone"}, {Kind: nodev1.Change_ADDED, Path: "/etc/new"},
	}}, err
}

// Stats plays half a CPU's use between two calls, by the time it tells.
func (s fakeContainers) Stats(_ context.Context, r *nodev1.StatsRequest) (*nodev1.StatsResponse, error) {
	for _, name := range r.GetContainers() {
		if _, err := s.f.inspect(name); err != nil {
			return nil, err
		}
	}
	n := int64(s.f.readings.Add(1))
	return &nodev1.StatsResponse{Stats: []*nodev1.Stats{
		{
			Id: webID, Name: "web", State: "running", At: timestamppb.New(time.Unix(1700000000+n, 0)), CpuNanos: uint64(n) * 5e8,
			MemoryBytes: 3 << 20, MemoryLimit: 1 << 30, NetworkReceived: 1500, BlockWritten: 4_100_000, Pids: 2,
		},
		{Id: jobID, Name: "job", State: "exited"},
	}}, nil
}

type fakeImages struct {
	nodev1.UnimplementedImagesServer
	f *fakeAgent
}

func (s fakeImages) Pull(r *nodev1.PullRequest, stream nodev1.Images_PullServer) error {
	return s.f.pull(r, stream)
}

func (s fakeImages) List(context.Context, *nodev1.ListImagesRequest) (*nodev1.ListImagesResponse, error) {
	return &nodev1.ListImagesResponse{Images: s.f.images()}, nil
}

func (s fakeImages) Inspect(_ context.Context, r *nodev1.InspectImageRequest) (*nodev1.InspectImageResponse, error) {
	if r.GetImage() != "busybox" {
		return nil, status.Errorf(codes.NotFound, "No such image: %s:latest", r.GetImage())
	}
	return &nodev1.InspectImageResponse{
		Image: s.f.images()[0], Manifest: digest, MediaType: "application/vnd.oci.image.manifest.v1+json", ManifestSize: 1024,
		Config: []byte(`{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["` + digest + `"]}}`),
	}, nil
}

func (s fakeImages) Remove(_ context.Context, r *nodev1.RemoveImageRequest) (*nodev1.RemoveImageResponse, error) {
	switch r.GetImage() {
	case "busybox":
		return &nodev1.RemoveImageResponse{
			Untagged: []string{"docker.io/library/busybox:latest"}, Deleted: []string{boxID},
		}, nil
	case "used":
		return nil, status.Error(codes.FailedPrecondition, `conflict: unable to remove repository reference "used" (must force) - container 111111111111 is using its referenced image aaaaaaaaaaaa`)
	}
	return nil, status.Errorf(codes.NotFound, "No such image: %s:latest", r.GetImage())
}

func (s fakeImages) Tag(_ context.Context, r *nodev1.TagImageRequest) (*nodev1.TagImageResponse, error) {
	if r.GetSource() != "busybox" {
		return nil, status.Errorf(codes.NotFound, "No such image: %s:latest", r.GetSource())
	}
	return &nodev1.TagImageResponse{}, nil
}

type fakeSystem struct {
	nodev1.UnimplementedSystemServer
	f *fakeAgent
}

func (s fakeSystem) Version(context.Context, *nodev1.VersionRequest) (*nodev1.VersionResponse, error) {
	return s.f.info().GetVersion(), nil
}

func (s fakeSystem) Info(context.Context, *nodev1.InfoRequest) (*nodev1.InfoResponse, error) {
	return s.f.info(), nil
}

// hostOf names a socket that nobody listens on.
func hostOf(dir string) string { return fmt.Sprintf("unix://%s/none.sock", dir) }
