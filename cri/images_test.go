package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/nodeagent/nodeagent/imageservice"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func userImage(id, user string) imageservice.Image {
	return imageservice.Image{
		ID: "sha256:" + id, Tags: []string{id + ".example/x:1"}, Digests: []string{id + ".example/x@sha256:d" + id},
		Size: 77, Config: &ocispec.Image{Config: ocispec.ImageConfig{User: user}}, ChainID: "sha256:c" + id,
	}
}

func imageRef(ref string) *runtime.ImageSpec { return &runtime.ImageSpec{Image: ref} }

func TestImageStatus(t *testing.T) {
	h := newHarness()
	h.images.images = []imageservice.Image{userImage("aa", "1003:1004")}
	h.serve(t)
	want := &runtime.Image{
		Id: "sha256:aa", RepoTags: []string{"aa.example/x:1"}, RepoDigests: []string{"aa.example/x@sha256:daa"},
		Size: 77, Uid: &runtime.Int64Value{Value: 1003},
	}
	for _, ref := range []string{"sha256:aa", "aa.example/x:1", "aa.example/x@sha256:daa"} {
		resp, err := h.image.ImageStatus(t.Context(), &runtime.ImageStatusRequest{Image: imageRef(ref), Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, resp.GetImage(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		var info struct {
			ChainID   string
			ImageSpec ocispec.Image
		}
		if err := json.Unmarshal([]byte(resp.GetInfo()["info"]), &info); err != nil {
			t.Fatal(err)
		}
		if info.ChainID != "sha256:caa" || info.ImageSpec.Config.User != "1003:1004" {
			t.Errorf("info %+v", info)
		}
	}
	resp, err := h.image.ImageStatus(t.Context(), &runtime.ImageStatusRequest{Image: imageRef("missing")})
	if err != nil || resp.GetImage() != nil {
		t.Errorf("missing image: %v, %v", resp, err)
	}
	_, err = h.image.ImageStatus(t.Context(), &runtime.ImageStatusRequest{})
	wantCode(t, err, codes.InvalidArgument, "image.image")
	_, err = h.image.ImageStatus(t.Context(), &runtime.ImageStatusRequest{Image: imageRef("Bad Ref")})
	wantCode(t, err, codes.InvalidArgument, "Bad Ref")
}

func TestImageUser(t *testing.T) {
	for user, want := range map[string]struct {
		uid  int64
		name string
	}{
		"": {-1, ""}, "0": {0, ""}, "1002": {1002, ""}, "1003:1004": {1003, ""}, "1003:grp": {1003, ""},
		"www-data": {-1, "www-data"}, "www-data:www-data": {-1, "www-data"},
		"2147483647": {2147483647, ""}, "2147483648": {-1, "2147483648"}, "4294967296": {-1, "4294967296"},
		"-1": {-1, "-1"}, "+0": {-1, "+0"}, "0x0": {-1, "0x0"}, "99999999999999999999": {-1, "99999999999999999999"},
		":5": {-1, ""},
	} {
		uid, name := imageUser(user)
		if name != want.name || (uid == nil) != (want.uid < 0) || (uid != nil && uid.GetValue() != want.uid) {
			t.Errorf("%q: got %v, %q", user, uid, name)
		}
	}
}

func TestListImages(t *testing.T) {
	h := newHarness()
	h.images.images = []imageservice.Image{userImage("aa", ""), userImage("bb", "web")}
	h.serve(t)
	for ref, want := range map[string]int{"": 2, "bb.example/x:1": 1, "missing": 0} {
		resp, err := h.image.ListImages(t.Context(), &runtime.ListImagesRequest{Filter: &runtime.ImageFilter{Image: imageRef(ref)}})
		if err != nil || len(resp.GetImages()) != want {
			t.Errorf("%q: %v, %v", ref, resp, err)
		}
	}
	_, err := h.image.ListImages(t.Context(), &runtime.ListImagesRequest{Filter: &runtime.ImageFilter{Image: imageRef("Bad Ref")}})
	wantCode(t, err, codes.InvalidArgument, "Bad Ref")
}

func TestPullImage(t *testing.T) {
	h := newHarness()
	var got imageservice.PullRequest
	var fail error
	h.images.pull = func(ctx context.Context, req imageservice.PullRequest) (imageservice.PullResult, error) {
		got = req
		if req.Ref == "hang" {
			<-ctx.Done()
			return imageservice.PullResult{}, fmt.Errorf("pull hang: %w: %w", errdefs.ErrUnavailable, ctx.Err())
		}
		return imageservice.PullResult{Image: userImage("aa", "")}, fail
	}
	h.serve(t)
	auth := &runtime.AuthConfig{
		Username: "u", Password: "p", Auth: "dTpw", ServerAddress: "r.example", IdentityToken: "it", RegistryToken: "rt",
	}
	resp, err := h.image.PullImage(t.Context(), &runtime.PullImageRequest{Image: imageRef("x:1"), Auth: auth})
	if err != nil || resp.GetImageRef() != "sha256:aa" {
		t.Fatal(resp, err)
	}
	want := imageservice.Auth{
		Username: "u", Password: "p", Auth: "dTpw", ServerAddress: "r.example", IdentityToken: "it", RegistryToken: "rt",
	}
	if got.Ref != "x:1" || got.Auth != want {
		t.Errorf("got %+v", got)
	}
	if _, err := h.image.PullImage(t.Context(), &runtime.PullImageRequest{Image: imageRef("x:1")}); err != nil || got.Auth != (imageservice.Auth{}) {
		t.Errorf("without credentials: %+v, %v", got.Auth, err)
	}
	_, err = h.image.PullImage(t.Context(), &runtime.PullImageRequest{})
	wantCode(t, err, codes.InvalidArgument, "image.image")
	_, err = h.image.PullImage(t.Context(), &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: "x", RuntimeHandler: "unknown"}})
	wantCode(t, err, codes.InvalidArgument, "image.runtime_handler")

	for field, wrong := range map[string]*runtime.AuthConfig{
		"auth.registry_token": {RegistryToken: "a\nb"}, "auth.server_address": {ServerAddress: "\x00"},
		"auth.identity_token": {IdentityToken: "\r"}, "auth.auth": {Auth: "%%"}, "auth.auth: ": {Auth: "YQ=="},
	} {
		_, err := h.image.PullImage(t.Context(), &runtime.PullImageRequest{Image: imageRef("x:1"), Auth: wrong})
		wantCode(t, err, codes.InvalidArgument, field)
	}

	for _, test := range []struct {
		err     error
		code    codes.Code
		message string
	}{
		{errdefs.ErrInvalidArgument, codes.InvalidArgument, "image.image: pull x:1"},
		{errdefs.ErrUnavailable, codes.Unknown, "RegistryUnavailable: pull x:1: "},
		{errdefs.ErrUnauthenticated, codes.Unauthenticated, "pull x:1: "},
		{errdefs.ErrNotFound, codes.NotFound, "pull x:1: "},
		{errors.New("odd"), codes.Unknown, "pull x:1: odd"},
	} {
		fail = fmt.Errorf("pull x:1: %w", test.err)
		_, err := h.image.PullImage(t.Context(), &runtime.PullImageRequest{Image: imageRef("x:1")})
		wantCode(t, err, test.code, test.message)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = h.image.PullImage(ctx, &runtime.PullImageRequest{Image: imageRef("hang")})
	wantCode(t, err, codes.DeadlineExceeded)
}

func TestRemoveImage(t *testing.T) {
	h := newHarness()
	var removed string
	h.images.remove = func(ref string) error { removed = ref; return nil }
	h.serve(t)
	if _, err := h.image.RemoveImage(t.Context(), &runtime.RemoveImageRequest{Image: imageRef("x")}); err != nil || removed != "x" {
		t.Error(removed, err)
	}
	_, err := h.image.RemoveImage(t.Context(), &runtime.RemoveImageRequest{Image: imageRef("")})
	wantCode(t, err, codes.InvalidArgument, "image.image")
}

func TestImageFsInfo(t *testing.T) {
	h := newHarness()
	h.images.usage = imageservice.FilesystemUsage{At: time.Unix(3, 4), Mountpoint: "/var/lib/x", Bytes: 5, Inodes: 6}
	h.serve(t)
	resp, err := h.image.ImageFsInfo(t.Context(), &runtime.ImageFsInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	fs := &runtime.FilesystemUsage{
		Timestamp: 3_000_000_004, FsId: &runtime.FilesystemIdentifier{Mountpoint: "/var/lib/x"},
		UsedBytes: &runtime.UInt64Value{Value: 5}, InodesUsed: &runtime.UInt64Value{Value: 6},
	}
	want := &runtime.ImageFsInfoResponse{
		ImageFilesystems: []*runtime.FilesystemUsage{fs}, ContainerFilesystems: []*runtime.FilesystemUsage{fs},
	}
	if diff := cmp.Diff(want, resp, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
