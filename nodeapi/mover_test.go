package nodeapi

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc/codes"
)

func TestPushImage(t *testing.T) {
	n := newNode(t)
	stream, err := n.imagesAPI.Push(n.ctx, &nodev1.PushRequest{Ref: "other/web:1", Auth: &nodev1.Auth{Username: "me"}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.GetProgress().GetStatus() != "Pushed" {
		t.Fatalf("%v, %v", first, err)
	}
	if last, err := stream.Recv(); err != nil || last.GetResult().GetDigest() != "sha256:d me" || last.GetResult().GetSize() != 7 {
		t.Fatalf("%v, %v", last, err)
	}
	for ref, words := range map[string]string{
		"nosuch": "An image does not exist locally with the tag: nosuch", "Bad Name": "invalid reference format",
		"x@sha256:" + strings.Repeat("a", 64): "cannot push a digest reference",
	} {
		stream, err := n.imagesAPI.Push(n.ctx, &nodev1.PushRequest{Ref: ref})
		if err == nil {
			_, err = stream.Recv()
		}
		code := codes.InvalidArgument
		if ref == "nosuch" {
			code = codes.NotFound
		}
		wantFailure(t, err, code, words)
	}
}

func TestSaveAndLoadStream(t *testing.T) {
	n := newNode(t)
	stream, err := n.imagesAPI.Save(n.ctx, &nodev1.SaveRequest{Images: []string{"box", "web"}})
	if err != nil {
		t.Fatal(err)
	}
	var saved []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || len(m.GetData()) == 0 || len(m.GetData()) > chunkSize {
			t.Fatalf("%d bytes, %v", len(m.GetData()), err)
		}
		saved = append(saved, m.GetData()...)
	}
	if string(saved) != strings.Repeat("box", chunkSize)+strings.Repeat("web", chunkSize) {
		t.Errorf("%d bytes", len(saved))
	}
	missing, err := n.imagesAPI.Save(n.ctx, &nodev1.SaveRequest{Images: []string{"nosuch"}})
	if err == nil {
		_, err = missing.Recv()
	}
	wantFailure(t, err, codes.NotFound, "No such image: nosuch:latest")

	load, err := n.imagesAPI.Load(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = load.Send(&nodev1.LoadRequest{Message: &nodev1.LoadRequest_Options{Options: &nodev1.LoadOptions{}}})
	for _, data := range []string{"abc", "", "def"} {
		_ = load.Send(&nodev1.LoadRequest{Message: &nodev1.LoadRequest_Data{Data: []byte(data)}})
	}
	resp, err := load.CloseAndRecv()
	if err != nil || len(resp.GetImages()) != 1 || resp.GetImages()[0].GetId() != "6" || resp.GetImages()[0].GetTags()[0] != "abc" {
		t.Errorf("%v, %v", resp, err)
	}
	bare, err := n.imagesAPI.Load(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = bare.Send(&nodev1.LoadRequest{Message: &nodev1.LoadRequest_Data{Data: []byte("x")}})
	_, err = bare.CloseAndRecv()
	wantFailure(t, err, codes.InvalidArgument, "the first message must be options")
}

func TestImport(t *testing.T) {
	n := newNode(t)
	send := func(options *nodev1.ImportOptions, data ...string) (string, error) {
		stream, err := n.imagesAPI.Import(n.ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&nodev1.ImportRequest{Message: &nodev1.ImportRequest_Options{Options: options}})
		for _, d := range data {
			_ = stream.Send(&nodev1.ImportRequest{Message: &nodev1.ImportRequest_Data{Data: []byte(d)}})
		}
		resp, err := stream.CloseAndRecv()
		return resp.GetId(), err
	}
	if id, err := send(&nodev1.ImportOptions{Message: "m"}, "a", "b"); err != nil || id != "mab" {
		t.Errorf("%q, %v", id, err)
	}
	if id, err := send(&nodev1.ImportOptions{Url: "http://x"}); err != nil || id != "http://x" {
		t.Errorf("%q, %v", id, err)
	}
	_, err := send(&nodev1.ImportOptions{Changes: []string{"RUN x"}})
	wantFailure(t, err, codes.InvalidArgument, "run is not a valid change command")
	_, err = send(&nodev1.ImportOptions{Ref: "Bad Name"})
	wantFailure(t, err, codes.InvalidArgument, "invalid reference format")
}

// A commit takes what the container was made with, holds it still, and lets
// it go on; one that an agent left held goes on with the next.
func TestCommit(t *testing.T) {
	n := newNode(t)
	spec := box("sleep", "1000")
	spec.Env, spec.User, spec.Labels = []string{"OWN=1", "BOTH=own"}, "me", map[string]string{"l": "v"}
	id := n.create("web", spec)
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "web"}); err != nil {
		t.Fatal(err)
	}
	upper := t.TempDir()
	if err := os.WriteFile(filepath.Join(upper, "new"), []byte("written"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.layers.dirs = map[string]string{"": upper}
	resp, err := n.containers.Commit(n.ctx, &nodev1.CommitRequest{Container: "web", Ref: "made", Author: "a", Comment: "c", Changes: []string{"WORKDIR /w"}})
	if err != nil || resp.GetId() != "sha256:committed" {
		t.Fatalf("%v, %v", resp, err)
	}
	got, req := n.images.config, n.images.committed
	if !slices.Equal(got.Env, []string{"IMAGE=1", "BOTH=own", "OWN=1"}) || got.User != "me" || got.WorkingDir != "/w" || got.Labels["l"] != "v" ||
		!slices.Equal(got.Cmd, []string{"sleep", "1000"}) {
		t.Errorf("%+v", got)
	}
	if req.Ref != "made" || req.Author != "a" || req.Comment != "c" || req.CreatedBy != "sleep 1000" || !bytes.Contains(n.images.layer.Bytes(), []byte("written")) {
		t.Errorf("%+v", req)
	}
	if c, _ := n.sandboxes.Container(id); c.State != sandbox.ContainerRunning {
		t.Errorf("it is %s", c.State)
	}
	for _, bad := range []*nodev1.CommitRequest{{Container: "web", Changes: []string{"FROM x"}}, {Container: "web", Ref: "Bad Name"}} {
		_, err := n.containers.Commit(n.ctx, bad)
		wantFailure(t, err, codes.InvalidArgument, "")
	}
	// An agent that was killed in the middle.
	mark := filepath.Join(n.root, "state", holdsDir, id)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = n.sandboxes.PauseContainer(n.ctx, id)
	n.stop()
	n.serve()
	n.stop() // waits for what the new one began
	if c, _ := n.sandboxes.Container(id); c.State != sandbox.ContainerRunning {
		t.Errorf("after the agent's death it is %s", c.State)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the mark is left")
	}
	n.serve()
}

func TestExport(t *testing.T) {
	n := newNode(t)
	id := n.create("web", box("sleep"))
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = n.sandboxes.change(id, func(c *sandbox.Container) { c.Rootfs = root })
	stream, err := n.containers.Export(n.ctx, &nodev1.ExportRequest{Container: "web"})
	if err != nil {
		t.Fatal(err)
	}
	var data []byte
	for err == nil {
		var m *nodev1.ExportResponse
		m, err = stream.Recv()
		data = append(data, m.GetData()...)
	}
	if !errors.Is(err, io.EOF) || !bytes.Contains(data, []byte("content")) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

func TestHistoryAndPrune(t *testing.T) {
	n := newNode(t)
	resp, err := n.imagesAPI.History(n.ctx, &nodev1.HistoryRequest{Image: "box"})
	if err != nil || len(resp.GetEntries()) != 2 || resp.GetEntries()[0].GetId() != boxImage || resp.GetEntries()[1].GetId() != "" {
		t.Errorf("%v, %v", resp, err)
	}
	_, err = n.imagesAPI.History(n.ctx, &nodev1.HistoryRequest{Image: "nosuch"})
	wantFailure(t, err, codes.NotFound, "No such image: nosuch:latest")
	_, err = n.imagesAPI.History(n.ctx, &nodev1.HistoryRequest{Image: "box", Platform: "linux/s390x"})
	wantFailure(t, err, codes.NotFound, "does not provide the specified platform")
	for _, test := range []struct {
		req  *nodev1.PruneImagesRequest
		want int
	}{
		{&nodev1.PruneImagesRequest{}, 0}, {&nodev1.PruneImagesRequest{All: true}, 2},
		{&nodev1.PruneImagesRequest{All: true, Labels: []string{"kind=image"}}, 1},
		{&nodev1.PruneImagesRequest{All: true, WithoutLabels: []string{"kind"}}, 1},
	} {
		resp, err := n.imagesAPI.Prune(n.ctx, test.req)
		if err != nil || len(resp.GetRemoved()) != test.want || resp.GetReclaimedBytes() != 9 {
			t.Errorf("%v: %v, %v", test.req, resp, err)
		}
	}
}

func TestRegistries(t *testing.T) {
	n := newNode(t)
	r := nodev1.NewRegistriesClient(n.conn)
	if resp, err := r.Login(n.ctx, &nodev1.LoginRequest{Auth: &nodev1.Auth{ServerAddress: "host", Username: "me", Password: "secret"}}); err != nil || resp.GetIdentityToken() != "token" {
		t.Errorf("%v, %v", resp, err)
	}
	_, err := r.Login(n.ctx, &nodev1.LoginRequest{Auth: &nodev1.Auth{ServerAddress: "host", Username: "me", Password: "wrong"}})
	wantFailure(t, err, codes.Unauthenticated, "login attempt to host failed with status: 401 Unauthorized")
	if resp, err := r.Search(n.ctx, &nodev1.SearchRequest{Term: "x", Limit: 2}); err != nil || len(resp.GetRepositories()) != 2 {
		t.Errorf("%v, %v", resp, err)
	}
	_, err = r.Search(n.ctx, &nodev1.SearchRequest{Term: "x", Limit: 101})
	wantFailure(t, err, codes.InvalidArgument, "outside the range")
	if resp, err := r.Tags(n.ctx, &nodev1.TagsRequest{Repository: "x"}); err != nil || resp.GetTags()[0] != "docker.io/library/x" {
		t.Errorf("%v, %v", resp, err)
	}
	_, err = r.Tags(n.ctx, &nodev1.TagsRequest{Repository: "x:1"})
	wantFailure(t, err, codes.InvalidArgument, "invalid reference format")
}
