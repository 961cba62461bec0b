package imageservice

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/snapshotter"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// testStore is a store with its snapshotter.
type testStore struct {
	*Store
	root      string
	snapshots *snapshotter.Overlay
}

// asErofs makes the tests of layers in directories tests of EROFS images.
var asErofs bool

// openStore opens a store, and closes it with the test.
func openStore(t testing.TB, cfg Config) *testStore {
	t.Helper()
	return reopenStore(t, t.TempDir(), cfg)
}

func reopenStore(t testing.TB, root string, cfg Config) *testStore {
	t.Helper()
	testenv.Root(t)
	config := snapshotter.Config{Root: filepath.Join(root, "snapshots")}
	if asErofs {
		config.Mounts = filepath.Join(root, "mounts")
	}
	snaps, err := snapshotter.New(config)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Root, cfg.Snapshotter = filepath.Join(root, "images"), snaps
	s, err := New(cfg)
	if err != nil {
		snaps.Close()
		t.Fatal(err)
	}
	ts := &testStore{Store: s, root: root, snapshots: snaps}
	t.Cleanup(ts.close)
	return ts
}

func (s *testStore) close() {
	s.Store.Close()
	s.snapshots.Close()
}

func (s *testStore) mustPull(t testing.TB, ref string) PullResult {
	t.Helper()
	res, err := s.Pull(context.Background(), PullRequest{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// files reads all regular files of an image, mounted.
func (s *testStore) files(t testing.TB, img Image) map[string]string {
	t.Helper()
	ctx := context.Background()
	key := fmt.Sprintf("view-%s-%d", img.ID, len(img.Tags))
	m, err := s.snapshots.View(ctx, key, img.ChainID)
	if err != nil {
		t.Fatal(err)
	}
	defer s.snapshots.Remove(ctx, key)
	target := t.TempDir()
	if err := snapshotter.Mount(ctx, m, target); err != nil {
		t.Fatal(err)
	}
	defer snapshotter.Unmount(target)
	return readFiles(t, target)
}

// readFiles reads all regular files below a directory.
func readFiles(t testing.TB, target string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(target, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(target, path)
		found[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// clean fails when a pull left something half-made.
func (s *testStore) clean(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	if len(s.jobs) > 0 || len(s.pulls) > 0 {
		t.Errorf("under way: %d jobs, %d pulls", len(s.jobs), len(s.pulls))
	}
	s.mu.Unlock()
	// A transfer that nobody wants any more ends soon.
	testenv.Eventually(t, 10*time.Second, "transfers to end", func() error {
		left, err := os.ReadDir(filepath.Join(s.root, "images", "content", "ingest"))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("half-made blobs: %v", left)
		}
		return err
	})
	if err := s.noHalfMadeLayer(); err != nil {
		t.Error(err)
	}
}

func (s *testStore) noHalfMadeLayer() error {
	entries, err := os.ReadDir(s.snapshots.Root())
	if err != nil {
		return err
	}
	for _, e := range entries {
		record, err := os.ReadFile(filepath.Join(s.snapshots.Root(), e.Name(), "record"))
		if err == nil && strings.Contains(string(record), `"name":"`+unpackPrefix) {
			return fmt.Errorf("half-made layer: %s", record)
		}
	}
	return nil
}

// testImage is an image to be pushed.
type testImage struct {
	config   ocispec.Image
	manifest ocispec.Manifest
	blobs    map[digest.Digest][]byte
	raw      []byte
}

type compression func([]byte) (data []byte, mediaType string)

func asPlain(data []byte) ([]byte, string) { return data, ocispec.MediaTypeImageLayer }

func asGzip(data []byte) ([]byte, string) {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(data)
	w.Close()
	return buf.Bytes(), ocispec.MediaTypeImageLayerGzip
}

func asZstd(data []byte) ([]byte, string) {
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf)
	if err != nil {
		panic(err)
	}
	w.Write(data)
	w.Close()
	return buf.Bytes(), ocispec.MediaTypeImageLayerZstd
}

// tarOf packs files; a nil content is a directory.
func tarOf(files ...string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		name, content, _ := strings.Cut(f, "=")
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		w.WriteHeader(h)
		io.WriteString(w, content)
	}
	w.Close()
	return buf.Bytes()
}

// newTestImage makes an image of layers given as tars.
func newTestImage(c compression, layers ...[]byte) *testImage {
	i := &testImage{blobs: map[digest.Digest][]byte{}}
	i.config = ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	i.config.Config.User = "1003:1004"
	i.config.Config.Cmd = []string{"/bin/true"}
	i.config.RootFS.Type = "layers"
	i.manifest = ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	for _, l := range layers {
		data, mt := c(l)
		i.config.RootFS.DiffIDs = append(i.config.RootFS.DiffIDs, digest.FromBytes(l))
		i.manifest.Layers = append(i.manifest.Layers, i.blob(mt, data))
	}
	return i.seal()
}

func (i *testImage) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	i.blobs[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// seal makes configuration and manifest anew.
func (i *testImage) seal() *testImage {
	config, err := json.Marshal(i.config)
	if err != nil {
		panic(err)
	}
	i.manifest.Config = i.blob(ocispec.MediaTypeImageConfig, config)
	if i.raw, err = json.Marshal(i.manifest); err != nil {
		panic(err)
	}
	return i
}

func (i *testImage) id() string { return i.manifest.Config.Digest.String() }

func (i *testImage) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: i.manifest.MediaType, Digest: digest.FromBytes(i.raw), Size: int64(len(i.raw))}
}

// push sends blobs and manifest to a registry.
func push(t testing.TB, base, repo, tag string, i *testImage) {
	t.Helper()
	pushBlobs(t, base, repo, i)
	pushManifest(t, base, repo, tag, i.manifest.MediaType, i.raw)
}

func pushBlobs(t testing.TB, base, repo string, i *testImage) {
	t.Helper()
	for d, data := range i.blobs {
		resp := do(t, http.MethodPost, base+"/v2/"+repo+"/blobs/uploads/", "", nil, http.StatusAccepted)
		u, err := url.Parse(resp.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("digest", d.String())
		u.RawQuery = q.Encode()
		do(t, http.MethodPut, u.String(), "application/octet-stream", data, http.StatusCreated)
	}
}

func pushManifest(t testing.TB, base, repo, ref, mediaType string, raw []byte) {
	t.Helper()
	do(t, http.MethodPut, base+"/v2/"+repo+"/manifests/"+ref, mediaType, raw, http.StatusCreated)
}

func do(t testing.TB, method, url, contentType string, body []byte, want int) *http.Response {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if resp.StatusCode != want {
		t.Fatalf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	return resp
}

// proxy stands before a registry and sees, or changes, what goes through.
type proxy struct {
	*httptest.Server
	host string

	mu   sync.Mutex
	seen []*http.Request
	// handle answers a request itself and returns true.
	handle func(w http.ResponseWriter, r *http.Request) bool
}

func newProxy(t testing.TB, target string, handle func(w http.ResponseWriter, r *http.Request) bool) *proxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	back := httputil.NewSingleHostReverseProxy(u)
	p := &proxy{handle: handle}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, r.Clone(context.Background()))
		p.mu.Unlock()
		if p.handle == nil || !p.handle(w, r) {
			back.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(p.Close)
	p.host = strings.TrimPrefix(p.URL, "http://")
	return p
}

// count counts GET requests whose path has a part.
func (p *proxy) count(part string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.seen {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, part) {
			n++
		}
	}
	return n
}

// authorized tells whether any request had credentials.
func (p *proxy) authorized() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.seen {
		if r.Header.Get("Authorization") != "" {
			return true
		}
	}
	return false
}

// hostsToml writes a hosts.toml for a registry and returns the folder of all.
func hostsToml(t testing.TB, dir, registry, text string) {
	t.Helper()
	dir = filepath.Join(dir, registry)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// blockOn holds requests for a blob until open is closed, and tells of the
// first by closing arrived.
func blockOn(blob string, arrived, open chan struct{}) func(http.ResponseWriter, *http.Request) bool {
	var once sync.Once
	return func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, blob) {
			once.Do(func() { close(arrived) })
			select {
			case <-open:
			case <-r.Context().Done():
			}
		}
		return false
	}
}

func digestOfBytes(data []byte) digest.Digest { return digest.FromBytes(data) }

// digest is the image's ID.
func (i Image) digest() digest.Digest { return digest.Digest(i.ID) }
