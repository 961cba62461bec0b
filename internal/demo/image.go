package demo

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// repository and tag are the image's name below the registry's address.
const (
	repository = "nodeagent/demo"
	tag        = "latest"
)

// image is an image with one layer, which holds one executable.
type image struct {
	exe      string // path of the executable
	config   []byte
	manifest []byte
	layer    ocispec.Descriptor
}

// newImage makes the image of an executable, which must be a static one. The layer is not held in memory: it is read
// from the executable each time.
func newImage(exe string) (*image, error) {
	i := &image{exe: exe}
	sum := sha256.New()
	size, err := i.writeLayer(sum)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", exe, err)
	}
	i.layer = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.NewDigest(digest.SHA256, sum), Size: size}
	config := ocispec.Image{Config: ocispec.ImageConfig{Entrypoint: []string{"/nodeagent", "demo-web"}}}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{i.layer.Digest}}
	if i.config, err = json.Marshal(config); err != nil {
		return nil, err
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	manifest.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(i.config), Size: int64(len(i.config))}
	manifest.Layers = []ocispec.Descriptor{i.layer}
	i.manifest, err = json.Marshal(manifest)
	return i, err
}

// counter counts what is written through it.
type counter struct {
	io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	return n, err
}

// writeLayer writes the layer, always the same bytes, and returns their number.
func (i *image) writeLayer(w io.Writer) (int64, error) {
	f, err := os.Open(i.exe)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	counted := &counter{Writer: w}
	archive := tar.NewWriter(counted)
	header := &tar.Header{Name: "nodeagent", Mode: 0o755, Size: info.Size(), ModTime: time.Unix(0, 0)}
	if err := archive.WriteHeader(header); err != nil {
		return 0, err
	}
	if _, err := io.Copy(archive, f); err != nil {
		return 0, err
	}
	err = archive.Close()
	return counted.n, err
}

// ServeHTTP answers as a registry that has this image only (Distribution specification, pull).
func (i *image) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, found := strings.CutPrefix(r.URL.Path, "/v2/")
	switch {
	case !found:
		http.NotFound(w, r)
	case name == "":
		w.WriteHeader(http.StatusOK)
	case path.Dir(name) == repository+"/manifests":
		i.serveManifest(w, r, path.Base(name))
	case path.Dir(name) == repository+"/blobs":
		i.serveBlob(w, r, path.Base(name))
	default:
		http.NotFound(w, r)
	}
}

func (i *image) serveManifest(w http.ResponseWriter, r *http.Request, reference string) {
	own := digest.FromBytes(i.manifest)
	if reference != tag && reference != own.String() {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	w.Header().Set("Docker-Content-Digest", own.String())
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(i.manifest))
}

func (i *image) serveBlob(w http.ResponseWriter, r *http.Request, name string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	switch name {
	case digest.FromBytes(i.config).String():
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(i.config))
	case i.layer.Digest.String():
		w.Header().Set("Content-Length", fmt.Sprint(i.layer.Size))
		if r.Method != http.MethodHead {
			_, _ = i.writeLayer(w) // a short answer is what the client sees of an error
		}
	default:
		http.NotFound(w, r)
	}
}

// registry is the image served on a loopback port.
type registry struct {
	server *http.Server
	done   chan error
	// ref is what to pull.
	ref string
}

func startRegistry(i *image) (*registry, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve the image: %w", err)
	}
	r := &registry{
		server: &http.Server{Handler: i, ReadHeaderTimeout: 5 * time.Second},
		done:   make(chan error, 1),
		ref:    fmt.Sprintf("%s/%s:%s", listener.Addr(), repository, tag),
	}
	go func() { r.done <- r.server.Serve(listener) }() // close waits for it
	return r, nil
}

func (r *registry) close() error {
	err := r.server.Close()
	<-r.done
	return err
}
