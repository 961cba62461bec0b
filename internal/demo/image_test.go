package demo

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The registry serves a manifest whose blobs are there, have the size and digest it says, and hold the executable.
func TestImageIsWhole(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "program")
	content := bytes.Repeat([]byte("program"), 1000)
	if err := os.WriteFile(exe, content, 0o755); err != nil {
		t.Fatal(err)
	}
	i, err := newImage(exe)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(i)
	defer server.Close()
	get := func(path string) []byte {
		t.Helper()
		answer, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, answer.Status, err)
		}
		return body
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(get("/v2/"+repository+"/manifests/"+tag), &manifest); err != nil {
		t.Fatal(err)
	}
	for _, blob := range append(manifest.Layers, manifest.Config) {
		body := get("/v2/" + repository + "/blobs/" + blob.Digest.String())
		if int64(len(body)) != blob.Size || digest.FromBytes(body) != blob.Digest {
			t.Errorf("blob %s is not what the manifest says", blob.Digest)
		}
	}
	archive := tar.NewReader(bytes.NewReader(get("/v2/" + repository + "/blobs/" + manifest.Layers[0].Digest.String())))
	if header, err := archive.Next(); err != nil || header.Name != "nodeagent" || header.Mode != 0o755 {
		t.Fatalf("entry %v, %v", header, err)
	}
	if found, err := io.ReadAll(archive); err != nil || !bytes.Equal(found, content) {
		t.Errorf("the executable is not whole: %v", err)
	}
}

func TestImageIsTheOnlyOne(t *testing.T) {
	i := &image{}
	for _, path := range []string{"/", "/v2/other/manifests/latest", "/v2/" + repository + "/manifests/other", "/v2/" + repository + "/blobs/sha256:00"} {
		recorder := httptest.NewRecorder()
		i.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
		if recorder.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, recorder.Code)
		}
	}
}
