package cve

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// registry serves the test images, and those that tests put together, over HTTP.
type registry struct {
	server *testenv.RegistryServer
	layout string

	mu        sync.Mutex
	manifests map[string]ocispec.Descriptor // by repository and tag, "repo:tag"
	blobs     map[digest.Digest][]byte      // those that are not in the layout
}

func newRegistry(t testing.TB) *registry {
	t.Helper()
	layout, err := images.Build(context.Background(), filepath.Join(testenv.CacheDir(), "testimages"))
	if err != nil {
		t.Fatal(err)
	}
	r := &registry{layout: layout, manifests: map[string]ocispec.Descriptor{}, blobs: map[digest.Digest][]byte{}}
	var index ocispec.Index
	if err := r.read(filepath.Join(layout, ocispec.ImageIndexFile), &index); err != nil {
		t.Fatal(err)
	}
	for _, one := range index.Manifests {
		_, name, _ := strings.Cut(one.Annotations[ocispec.AnnotationRefName], "/")
		r.manifests[name] = one
	}
	listener := httptest.NewServer(r)
	t.Cleanup(listener.Close)
	r.server = &testenv.RegistryServer{URL: listener.URL, Host: strings.TrimPrefix(listener.URL, "http://"), CertsDir: filepath.Join(t.TempDir(), "certs.d")}
	if err := images.WriteMirrors(r.server.CertsDir, r.server.URL); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *registry) read(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := strings.TrimPrefix(req.URL.Path, "/v2/")
	repo, reference, isManifest := strings.Cut(path, "/manifests/")
	if !isManifest {
		_, reference, _ = strings.Cut(path, "/blobs/")
	}
	r.mu.Lock()
	desc, tagged := r.manifests[repo+":"+reference]
	r.mu.Unlock()
	d := digest.Digest(reference)
	if tagged {
		d = desc.Digest
	}
	content, err := r.blob(d)
	if err != nil {
		http.NotFound(w, req)
		return
	}
	if isManifest {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", d.String())
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	_, _ = w.Write(content)
}

func (r *registry) blob(d digest.Digest) ([]byte, error) {
	r.mu.Lock()
	content, ok := r.blobs[d]
	r.mu.Unlock()
	if ok {
		return content, nil
	}
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(r.layout, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()))
}

func (r *registry) put(mediaType string, content []byte) ocispec.Descriptor {
	d := digest.FromBytes(content)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[d] = content
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

func (r *registry) document(t testing.TB, mediaType string, value any) ocispec.Descriptor {
	t.Helper()
	content, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return r.put(mediaType, content)
}

// link is a symbolic link in a layer.
func link(name, target string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

// gone is what takes a file of the layers below away.
func gone(name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: filepath.Join(filepath.Dir(name), ".wh."+filepath.Base(name))}
}

// image puts a layer on top of busybox, and returns the reference of the image made so.
func (r *registry) image(t testing.TB, name string, headers ...*tar.Header) string {
	t.Helper()
	return r.imageWith(t, name, func(*ocispec.ImageConfig) {}, headers...)
}

// imageWith is image with another configuration, too.
func (r *registry) imageWith(t testing.TB, name string, change func(*ocispec.ImageConfig), headers ...*tar.Header) string {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, header := range headers {
		if header.Mode == 0 {
			header.Mode = 0o755
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, base, _ := strings.Cut(images.Busybox, "/")
	var manifest ocispec.Manifest
	var config ocispec.Image
	r.decode(t, r.manifests[base].Digest, &manifest)
	r.decode(t, manifest.Config.Digest, &config)
	top := r.put(ocispec.MediaTypeImageLayer, layer.Bytes())
	manifest.Layers = append(manifest.Layers, top)
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, top.Digest)
	change(&config.Config)
	manifest.Config = r.document(t, ocispec.MediaTypeImageConfig, config)
	desc := r.document(t, ocispec.MediaTypeImageManifest, manifest)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manifests["cve/"+name+":1"] = desc
	return "registry.k8s.io/cve/" + name + ":1"
}

func (r *registry) decode(t testing.TB, d digest.Digest, into any) {
	t.Helper()
	content, err := r.blob(d)
	if err == nil {
		err = json.Unmarshal(content, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}
