package imageservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPull(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	s := openStore(t, Config{})
	for name, c := range map[string]compression{"plain": asPlain, "gzip": asGzip, "zstd": asZstd} {
		t.Run(name, func(t *testing.T) {
			i := newTestImage(c, tarOf("a/", "a/b=1"+name, "c=1"), tarOf("a/", "a/d=2"), tarOf("a/.wh.b", "c=3"))
			push(t, reg.URL, "test/"+name, "v1", i)
			ref := reg.Host + "/test/" + name
			res := s.mustPull(t, ref+":v1")
			img := res.Image
			if !res.New || img.ID != i.id() || res.Digest != i.descriptor().Digest.String() || img.Size <= 0 || img.ContentSize <= 0 {
				t.Errorf("%+v", res)
			}
			if !slices.Equal(img.Tags, []string{ref + ":v1"}) || !slices.Equal(img.Digests, []string{ref + "@" + res.Digest}) {
				t.Errorf("tags %q, digests %q", img.Tags, img.Digests)
			}
			if img.Config.Config.User != "1003:1004" {
				t.Errorf("user %q", img.Config.Config.User)
			}
			if got := s.files(t, img); !maps.Equal(got, map[string]string{"a/d": "2", "c": "3"}) {
				t.Errorf("files %q", got)
			}
			again := s.mustPull(t, ref+"@"+res.Digest)
			if again.New || again.Image.ID != img.ID || len(again.Image.Tags) != 1 {
				t.Errorf("again: %+v", again)
			}
			for _, find := range []string{ref + ":v1", ref + "@" + res.Digest, img.ID, img.ID[7:], img.ID[7:20], img.ID[:20]} {
				if found, err := s.Image(t.Context(), find); err != nil || found.ID != img.ID {
					t.Errorf("find %s: %v, %v", find, found.ID, err)
				}
			}
		})
	}
	s.clean(t)
}

// TestPullIndex: the platform is chosen, attestations and foreign platforms
// are left alone.
func TestPullIndex(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	s := openStore(t, Config{})
	amd := newTestImage(asGzip, tarOf("arch=amd64"))
	arm := newTestImage(asGzip, tarOf("arch=arm64"))
	arm.config.Architecture = "arm64"
	arm.seal()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, i := range []*testImage{arm, amd} {
		pushBlobs(t, reg.URL, "multi", i)
		pushManifest(t, reg.URL, "multi", i.descriptor().Digest.String(), i.manifest.MediaType, i.raw)
		desc := i.descriptor()
		desc.Platform = &i.config.Platform
		attestation := desc
		attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
		attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
		index.Manifests = append(index.Manifests, attestation, desc)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	pushManifest(t, reg.URL, "multi", "latest", index.MediaType, raw)
	for platform, want := range map[string]*testImage{"linux/amd64": amd, "linux/arm64": arm} {
		res, err := s.Pull(t.Context(), PullRequest{Ref: reg.Host + "/multi", Platform: platform})
		if err != nil || res.Image.ID != want.id() || res.Digest != digest.FromBytes(raw).String() {
			t.Errorf("%s: %+v, %v", platform, res, err)
		}
	}
	_, err = s.Pull(t.Context(), PullRequest{Ref: reg.Host + "/multi", Platform: "linux/s390x"})
	if !errdefs.IsNotFound(err) {
		t.Errorf("no such platform: %v", err)
	}
	_, err = s.Pull(t.Context(), PullRequest{Ref: reg.Host + "/multi@" + arm.descriptor().Digest.String(), Platform: "linux/amd64"})
	if !errdefs.IsNotFound(err) {
		t.Errorf("another platform by digest: %v", err)
	}
}

// TestOnePullForMany: callers with the same wish share a transfer, each with
// its own context.
func TestOnePullForMany(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("x="+strings.Repeat("x", 100_000)))
	push(t, reg.URL, "one", "latest", i)
	blob := i.manifest.Layers[0].Digest.Encoded()
	arrived, open := make(chan struct{}), make(chan struct{})
	var once sync.Once
	release := sync.OnceFunc(func() { close(open) })
	p := newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, blob) {
			once.Do(func() { close(arrived) })
			<-open
		}
		return false
	})
	t.Cleanup(release) // before the proxy, which waits for its requests
	s := openStore(t, Config{})
	ref := p.host + "/one"
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		if _, err := s.Pull(ctx, PullRequest{Ref: ref}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
	<-arrived
	var told sync.Map
	for n := range 4 {
		wg.Go(func() {
			res, err := s.Pull(t.Context(), PullRequest{Ref: ref, Progress: func(pr Progress) { told.Store(fmt.Sprint(n, pr.Status), true) }})
			if err != nil || res.Image.ID != i.id() {
				t.Errorf("%+v, %v", res, err)
			}
		})
	}
	testenv.Eventually(t, 10*time.Second, "all to wait", func() error { return s.waiting(5) })
	cancel()
	testenv.Eventually(t, 10*time.Second, "one to leave", func() error { return s.waiting(4) })
	release()
	wg.Wait()
	if n := p.count(blob); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
	for n := range 4 {
		if _, ok := told.Load(fmt.Sprint(n, "Pull complete")); !ok {
			t.Errorf("caller %d was not told of the end", n)
		}
	}
	s.clean(t)
}

// waiting fails unless so many callers wait for the only pull.
func (s *testStore) waiting(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pulls {
		if p.waiters == n {
			return nil
		}
	}
	return fmt.Errorf("not %d", n)
}

// TestSharedLayers pulls images with common layers at once, with fewer places
// than layers.
func TestSharedLayers(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	var base [][]byte
	for n := range 8 {
		base = append(base, tarOf(fmt.Sprintf("base%d=%s", n, strings.Repeat("x", 50_000)), fmt.Sprintf("dir/f%d=x", n)))
	}
	p := newProxy(t, reg.URL, nil)
	s := openStore(t, Config{})
	const images = 6
	var wg sync.WaitGroup
	for n := range images {
		i := newTestImage(asGzip, append(slices.Clone(base[:3+n%5]), tarOf(fmt.Sprintf("own=%d", n)))...)
		push(t, reg.URL, fmt.Sprintf("shared%d", n), "latest", i)
	}
	for n := range images {
		wg.Go(func() {
			res, err := s.Pull(t.Context(), PullRequest{Ref: fmt.Sprintf("%s/shared%d", p.host, n)})
			if err != nil {
				t.Error(err)
				return
			}
			files := s.files(t, res.Image)
			if files["own"] != fmt.Sprint(n) || len(files) != 2*(3+n%5)+1 {
				t.Errorf("image %d has %d files, own %q", n, len(files), files["own"])
			}
		})
	}
	wg.Wait()
	layer, _ := asGzip(base[0])
	if n := p.count(digest.FromBytes(layer).Encoded()); n != 1 {
		t.Errorf("the lowest layer was fetched %d times", n)
	}
	s.clean(t)
}

// TestManyLayers is an image of 120 tiny layers.
func TestManyLayers(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	var layers [][]byte
	for n := range 120 {
		layers = append(layers, tarOf(fmt.Sprintf("d/f%d=%d", n, n)))
	}
	push(t, reg.URL, "many", "latest", newTestImage(asGzip, layers...))
	s := openStore(t, Config{})
	res := s.mustPull(t, reg.Host+"/many")
	if files := s.files(t, res.Image); len(files) != 120 || files["d/f119"] != "119" {
		t.Errorf("%d files", len(files))
	}
}

// TestBrokenImages: whatever is wrong with an image, nothing of it stays.
func TestBrokenImages(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	good := func() *testImage { return newTestImage(asGzip, tarOf("a=1"), tarOf("b=2")) }
	for name, c := range map[string]struct {
		broken *testImage
		is     func(error) bool
	}{
		"wrong diffID": {func() *testImage {
			i := good()
			i.config.RootFS.DiffIDs[1] = digest.FromString("x")
			return i.seal()
		}(), errdefs.IsDataLoss},
		"more diffIDs": {func() *testImage {
			i := good()
			i.config.RootFS.DiffIDs = append(i.config.RootFS.DiffIDs, digest.FromString("x"))
			return i.seal()
		}(), errdefs.IsInvalidArgument},
		"climbing layer": {newTestImage(asGzip, tarOf("a=1"), tarOf("../x=1")), errdefs.IsInvalidArgument},
		"not a tar":      {newTestImage(asGzip, []byte(strings.Repeat("not a tar ", 1000))), errdefs.IsInvalidArgument},
		"cut tar":        {newTestImage(asGzip, tarOf("a=" + strings.Repeat("x", 5000))[:3000]), errdefs.IsDataLoss},
		"cut gzip": {func() *testImage {
			i := newTestImage(func(b []byte) ([]byte, string) {
				data, mt := asGzip(b)
				return data[:len(data)-20], mt
			}, tarOf("a="+strings.Repeat("x", 5000)))
			return i
		}(), errdefs.IsDataLoss},
	} {
		t.Run(name, func(t *testing.T) {
			repo := strings.ReplaceAll(strings.ToLower(name), " ", "-")
			push(t, reg.URL, repo, "latest", c.broken)
			s := openStore(t, Config{})
			_, err := s.Pull(t.Context(), PullRequest{Ref: reg.Host + "/" + repo})
			if !c.is(err) {
				t.Errorf("pull: %v", err)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "pull "+reg.Host+"/"+repo) {
				t.Errorf("it does not name the image: %v", err)
			}
			s.clean(t)
			if list, err := s.Images(t.Context()); err != nil || len(list) > 0 {
				t.Errorf("%v, %v", list, err)
			}
			if err := s.Collect(t.Context()); err != nil {
				t.Fatal(err)
			}
			if u, err := s.FilesystemUsage(t.Context()); err != nil || u.Bytes != 0 || u.Inodes != 0 {
				t.Errorf("left %+v, %v", u, err)
			}
		})
	}
}
