package calls

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
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

// What the lists name are methods that there are, of the kind that is meant.
func TestMethodsAreThere(t *testing.T) {
	unary, streams := map[string]bool{}, map[string]bool{}
	for _, service := range []grpc.ServiceDesc{
		runtime.RuntimeService_ServiceDesc, runtime.ImageService_ServiceDesc, nodev1.Containers_ServiceDesc, nodev1.Images_ServiceDesc,
		nodev1.Networks_ServiceDesc, nodev1.System_ServiceDesc, nodev1.Volumes_ServiceDesc, nodev1.Debug_ServiceDesc, nodev1.Events_ServiceDesc,
		nodev1.Registries_ServiceDesc, nodev1.Store_ServiceDesc,
	} {
		for _, m := range service.Methods {
			unary[m.MethodName] = true
		}
		for _, m := range service.Streams {
			streams[m.StreamName] = true
		}
	}
	for _, name := range patient {
		if !unary[name] {
			t.Errorf("patient: there is no unary method %s", name)
		}
	}
	for _, name := range endless {
		if !unary[name] && !streams[name] {
			t.Errorf("endless: there is no method %s", name)
		}
	}
	for _, begin := range asking {
		found := false
		for name := range maps.Keys(unary) {
			found = found || strings.HasPrefix(name, begin)
		}
		for name := range maps.Keys(streams) {
			found = found || strings.HasPrefix(name, begin)
		}
		if !found {
			t.Errorf("asking: no method begins with %s", begin)
		}
	}
}
