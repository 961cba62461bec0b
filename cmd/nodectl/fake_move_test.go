package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func (s fakeImages) Push(r *nodev1.PushRequest, stream nodev1.Images_PushServer) error {
	if !strings.Contains(r.GetRef(), "box") {
		return status.Errorf(codes.NotFound, "An image does not exist locally with the tag: %s", strings.Split(r.GetRef(), ":")[0])
	}
	for _, p := range []*nodev1.PullProgress{
		{Digest: "sha256:cccccccccccccccc", Status: "Preparing"}, {Digest: "sha256:eeeeeeeeeeeeeeee", Status: "Preparing"},
		{Digest: "sha256:cccccccccccccccc", Status: "Pushing", Current: 512, Total: 1024},
		{Digest: "sha256:eeeeeeeeeeeeeeee", Status: "Layer already exists"}, {Digest: "sha256:cccccccccccccccc", Status: "Pushed"},
	} {
		if err := stream.Send(&nodev1.PushResponse{Message: &nodev1.PushResponse_Progress{Progress: p}}); err != nil {
			return err
		}
	}
	return stream.Send(&nodev1.PushResponse{Message: &nodev1.PushResponse_Result{Result: &nodev1.PushResult{Digest: digest, Size: 1024}}})
}

func (s fakeImages) Save(r *nodev1.SaveRequest, stream nodev1.Images_SaveServer) error {
	for _, name := range r.GetImages() {
		if name == "nothing" {
			return status.Error(codes.NotFound, "No such image: nothing:latest")
		}
		if err := stream.Send(&nodev1.SaveResponse{Data: []byte("archive of " + name + "\n")}); err != nil {
			return err
		}
	}
	return nil
}

func (s fakeImages) Load(stream nodev1.Images_LoadServer) error {
	data := ""
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		data += string(m.GetData())
	}
	if !strings.HasPrefix(data, "archive") {
		return status.Error(codes.InvalidArgument, "load: neither index.json nor manifest.json is in it")
	}
	return stream.SendAndClose(&nodev1.LoadResponse{Images: []*nodev1.LoadedImage{
		{Id: boxID, Tags: []string{"docker.io/library/busybox:latest", "127.0.0.1:5000/box:1"}}, {Id: webHash},
	}})
}

// Import answers with an ID made of what it was sent.
func (s fakeImages) Import(stream nodev1.Images_ImportServer) error {
	said := ""
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&nodev1.ImportResponse{Id: said})
		}
		if err != nil {
			return err
		}
		if o := m.GetOptions(); o != nil {
			said += strings.Join(append([]string{o.GetRef(), o.GetMessage(), o.GetPlatform(), o.GetUrl()}, o.GetChanges()...), "|")
		}
		said += string(m.GetData())
	}
}

func (s fakeImages) History(_ context.Context, r *nodev1.HistoryRequest) (*nodev1.HistoryResponse, error) {
	if r.GetImage() != "busybox" {
		return nil, status.Errorf(codes.NotFound, "No such image: %s:latest", r.GetImage())
	}
	at := timestamppb.New(time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC))
	return &nodev1.HistoryResponse{Entries: []*nodev1.HistoryEntry{
		{Id: boxID, CreatedBy: `/bin/sh -c #(nop)  CMD ["sh"] and so on and so on`, Comment: "buildkit", CreatedAt: at},
		{CreatedBy: "/bin/sh -c #(nop) ADD file:x in / ", Size: 4260000, CreatedAt: at},
	}}, nil
}

// Prune removes the container that has ended, which was made five hours ago
// and has no label.
func (s fakeContainers) Prune(_ context.Context, r *nodev1.PruneContainersRequest) (*nodev1.PruneContainersResponse, error) {
	if len(r.GetLabels()) > 0 || r.GetUntil() != nil && r.GetUntil().AsTime().Before(before(5).AsTime()) {
		return &nodev1.PruneContainersResponse{}, nil
	}
	return &nodev1.PruneContainersResponse{Ids: []string{jobID}}, nil
}

func (s fakeImages) Prune(_ context.Context, r *nodev1.PruneImagesRequest) (*nodev1.PruneImagesResponse, error) {
	resp := &nodev1.PruneImagesResponse{Removed: []*nodev1.RemovedImage{{Deleted: []string{webHash}}}, ReclaimedBytes: 1230000}
	if r.GetAll() {
		resp.Removed = append(resp.Removed, &nodev1.RemovedImage{Untagged: []string{"docker.io/library/busybox:latest"}, Deleted: []string{boxID}})
	}
	if len(r.GetLabels()) > 0 || r.GetUntil() != nil {
		return &nodev1.PruneImagesResponse{}, nil
	}
	return resp, nil
}

func (s fakeContainers) Export(r *nodev1.ExportRequest, stream nodev1.Containers_ExportServer) error {
	if r.GetContainer() != "web" {
		return status.Errorf(codes.NotFound, "No such container: %s", r.GetContainer())
	}
	return stream.Send(&nodev1.ExportResponse{Data: []byte("files of web\n")})
}

func (s fakeContainers) Commit(_ context.Context, r *nodev1.CommitRequest) (*nodev1.CommitResponse, error) {
	said := strings.Join(append([]string{r.GetContainer(), r.GetRef(), r.GetAuthor(), r.GetComment()}, r.GetChanges()...), "|")
	if r.GetNoPause() {
		said += "|no pause"
	}
	return &nodev1.CommitResponse{Id: said}, nil
}

// fakeRegistries are registries with one user, me, whose password is secret.
type fakeRegistries struct {
	nodev1.UnimplementedRegistriesServer
}

func (fakeRegistries) Login(_ context.Context, r *nodev1.LoginRequest) (*nodev1.LoginResponse, error) {
	auth := r.GetAuth()
	if auth.GetUsername() != "me" || auth.GetPassword() != "secret" {
		return nil, status.Errorf(codes.Unauthenticated, "login attempt to %s failed with status: 401 Unauthorized", auth.GetServerAddress())
	}
	if strings.Contains(auth.GetServerAddress(), "token") {
		return &nodev1.LoginResponse{IdentityToken: "a token"}, nil
	}
	return &nodev1.LoginResponse{}, nil
}

func (fakeRegistries) Explain(_ context.Context, r *nodev1.ExplainRequest) (*nodev1.ExplainResponse, error) {
	resp := &nodev1.ExplainResponse{
		Ref: r.GetRef(), Files: []*nodev1.ConfigFile{{Path: "/etc/nodeagent/certs.d/r.test/hosts.toml", State: "used"}},
		Attempts: []*nodev1.Attempt{{
			Url: "http://mirror.test/v2/x/manifests/1?ns=r.test", Role: "mirror", Config: "/etc/nodeagent/certs.d/r.test/hosts.toml:3", Tls: "none",
			Answer: "HEAD http://mirror.test/v2/x/manifests/1: 404 Not Found", Millis: 2,
		}},
	}
	if !strings.Contains(r.GetRef(), "nosuch") {
		resp.Attempts = append(resp.Attempts, &nodev1.Attempt{
			Url: "https://r.test/v2/x/manifests/1", Role: "registry", Tls: "verified", Credentials: "the caller", Proxy: "http://proxy.test:3128",
			Answer: "200 OK: application/vnd.oci.image.index.v1+json, 123 bytes", Digest: "sha256:abc", WouldServe: true, Millis: 31,
		})
	}
	return resp, nil
}

func (fakeRegistries) Pulls(context.Context, *nodev1.PullsRequest) (*nodev1.PullsResponse, error) {
	return &nodev1.PullsResponse{Pulls: []*nodev1.PullUnderWay{
		{Ref: "docker.io/library/big:1", Waiters: 2, StartedAt: timestamppb.Now(), Layers: []*nodev1.PullProgress{
			{Digest: "sha256:" + strings.Repeat("a", 64), Status: "Downloading", Current: 5 << 20, Total: 10 << 20},
			{Digest: "sha256:" + strings.Repeat("b", 64), Status: "Already exists"},
		}},
		{Ref: "r.test/slow:1", Waiters: 1, StartedAt: timestamppb.Now()},
	}}, nil
}

func (fakeRegistries) Search(_ context.Context, r *nodev1.SearchRequest) (*nodev1.SearchResponse, error) {
	all := []*nodev1.FoundRepository{
		{Name: "nginx", Description: "Official build of Nginx,\nwhich serves pages and does much more than that.", Stars: 20000, Official: true},
		{Name: "bitnami/nginx", Description: "Another", Stars: 200, Automated: true},
	}
	if r.GetLimit() == 1 {
		all = all[:1]
	}
	return &nodev1.SearchResponse{Repositories: all}, nil
}

func (fakeRegistries) Tags(context.Context, *nodev1.TagsRequest) (*nodev1.TagsResponse, error) {
	return &nodev1.TagsResponse{Tags: []string{"3", "latest"}}, nil
}
