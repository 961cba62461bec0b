package calls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

type server struct {
	runtime.UnimplementedRuntimeServiceServer
	caller chan string
	table  *Table
	under  []Call
}

func (s *server) StopContainer(ctx context.Context, _ *runtime.StopContainerRequest) (*runtime.StopContainerResponse, error) {
	s.caller <- recorder.Caller(ctx)
	s.under = s.table.UnderWay()
	return &runtime.StopContainerResponse{}, errors.New("no")
}

func (s *server) ExecSync(context.Context, *runtime.ExecSyncRequest) (*runtime.ExecSyncResponse, error) {
	return &runtime.ExecSyncResponse{ExitCode: 3}, nil
}

func (s *server) RunPodSandbox(context.Context, *runtime.RunPodSandboxRequest) (*runtime.RunPodSandboxResponse, error) {
	return &runtime.RunPodSandboxResponse{PodSandboxId: "p1"}, nil
}

func (s *server) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	return &runtime.ListContainersResponse{}, nil
}

func TestCallsAreRecordedWithWhoMakesThem(t *testing.T) {
	dir := t.TempDir()
	r, err := recorder.Open(recorder.Config{Dir: filepath.Join(dir, "r")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	table := NewTable(r, nil)
	table.Pods(func(meta *runtime.PodSandboxMetadata) string { return "p-" + meta.GetName() }, func(id string) string { return "p-of-" + id })
	s := &server{caller: make(chan string, 1), table: table}
	g := grpc.NewServer(table.ServerOptions()...)
	runtime.RegisterRuntimeServiceServer(g, s)
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Serve(listener) }()
	defer func() { g.Stop(); <-done }()
	conn, err := grpc.NewClient("unix://"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := runtime.NewRuntimeServiceClient(conn)
	_, _ = client.RunPodSandbox(t.Context(), &runtime.RunPodSandboxRequest{})
	_, _ = client.ListContainers(t.Context(), &runtime.ListContainersRequest{})
	for range 3 {
		_, _ = client.ExecSync(t.Context(), &runtime.ExecSyncRequest{ContainerId: "c"})
	}
	_, _ = client.StopContainer(t.Context(), &runtime.StopContainerRequest{ContainerId: "c"})
	if who := <-s.caller; !strings.HasSuffix(who, fmt.Sprintf("(PID %d)", os.Getpid())) {
		t.Errorf("called by %q", who)
	}
	if len(s.under) != 1 || s.under[0].Method != "StopContainer" || s.under[0].Container != "c" {
		t.Errorf("under way: %v", s.under)
	}
	var got []string
	if err := r.Scan(t.Context(), "", func(e recorder.Entry) bool {
		got = append(got, e.What+" "+e.Pod+e.Container+" "+e.Error)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if want := "RunPodSandbox p1 ,ExecSync p-of-cc exit code 3,StopContainer p-of-cc no"; strings.Join(got, ",") != want {
		t.Errorf("recorded %q", got)
	}
}
