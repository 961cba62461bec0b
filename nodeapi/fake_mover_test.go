package nodeapi

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/imageservice/imageconfig"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (f *fakeSandboxes) OpenRootfs(_ context.Context, id string) (*os.File, error) {
	c, err := f.find(id)
	if err != nil {
		return nil, err
	}
	return os.Open(c.Rootfs)
}

// setRootfs gives a container files.
func (f *fakeSandboxes) setRootfs(id, dir string) error {
	return f.change(id, func(c *sandbox.Container) { c.Rootfs = dir })
}

func (f *fakeSandboxes) ChangeRootfs(ctx context.Context, id string, change func(*os.File) error) error {
	root, err := f.OpenRootfs(ctx, id)
	if err != nil {
		return err
	}
	defer root.Close()
	return change(root)
}

func (f *fakeImages) ManifestOf(ctx context.Context, id string) (ocispec.Descriptor, error) {
	img, err := f.Image(ctx, id)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(img.Manifest), Size: 7}, err
}

func (f *fakeImages) Remove(context.Context, string) error { return nil }

func (f *fakeImages) Push(ctx context.Context, req imageservice.PushRequest) (imageservice.PushResult, error) {
	if _, err := f.Image(ctx, req.Ref); err != nil {
		return imageservice.PushResult{}, err
	}
	req.Progress(imageservice.Progress{Digest: "sha256:1", Status: "Pushed"})
	return imageservice.PushResult{Digest: "sha256:d " + req.Auth.Username, Size: 7}, nil
}

func (f *fakeImages) Save(ctx context.Context, to io.Writer, refs []string, _ string) error {
	for _, ref := range refs {
		if _, err := f.Image(ctx, ref); err != nil {
			return err
		}
		if _, err := io.WriteString(to, strings.Repeat(ref, chunkSize)); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeImages) Load(_ context.Context, r io.Reader, _ string) ([]imageservice.Loaded, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return []imageservice.Loaded{{Image: imageservice.Image{ID: fmt.Sprint(len(data))}, Tags: []string{string(data[:3])}}}, nil
}

func (f *fakeImages) ImportRoot(_ context.Context, r io.Reader, req imageservice.ImportRequest) (imageservice.Image, error) {
	if err := new(imageconfig.Config).Apply(req.Changes); err != nil {
		return imageservice.Image{}, fmt.Errorf("import: %w", err)
	}
	data, err := io.ReadAll(r)
	return imageservice.Image{ID: req.Comment + string(data)}, err
}

func (f *fakeImages) ImportURL(_ context.Context, url string, _ imageservice.ImportRequest) (imageservice.Image, error) {
	return imageservice.Image{ID: url}, nil
}

func (f *fakeImages) Commit(_ context.Context, req imageservice.CommitRequest) (imageservice.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.committed = req
	f.config.Env = []string{"IMAGE=1", "BOTH=image"}
	req.Config(&f.config)
	err := f.config.Apply(req.Changes)
	if err == nil {
		err = req.Layer(&f.layer)
	}
	return imageservice.Image{ID: "sha256:committed"}, err
}

func (f *fakeImages) History(ctx context.Context, ref string) (imageservice.Image, []imageservice.Step, error) {
	img, err := f.Image(ctx, ref)
	return img, []imageservice.Step{{Created: time.Unix(1e9, 0), CreatedBy: "last", Size: 3}, {CreatedBy: "first"}}, err
}

func (f *fakeImages) Prune(_ context.Context, all bool, wanted func(imageservice.Image) bool) ([]imageservice.Pruned, int64, error) {
	var out []imageservice.Pruned
	for _, img := range f.images {
		if all && wanted(img) {
			out = append(out, imageservice.Pruned{ID: img.ID, Names: img.Tags})
		}
	}
	return out, 9, nil
}

func (f *fakeImages) Login(_ context.Context, auth imageservice.Auth) (string, error) {
	if auth.Password != "secret" {
		return "", fmt.Errorf("login: %w", errdefs.ErrUnauthenticated)
	}
	return "token", nil
}

func (f *fakeImages) Search(_ context.Context, term string, limit int, _ imageservice.Auth) ([]imageservice.Found, error) {
	return slices.Repeat([]imageservice.Found{{Name: term, Stars: 3, Official: true}}, limit), nil
}

func (f *fakeImages) Tags(_ context.Context, repository string, _ imageservice.Auth) ([]string, error) {
	return []string{repository}, nil
}
