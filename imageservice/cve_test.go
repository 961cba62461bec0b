package imageservice

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// served is a registry whose manifest is given.
func served(t *testing.T, base, mediaType string, raw []byte) *testenv.FaultProxy {
	t.Helper()
	return testenv.Faults(t, base, testenv.Rule{Path: "/manifests/", Fault: func(_ *testenv.FaultProxy, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(raw).String())
		w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(raw)
		}
	}})
}

// CVE-2024-3727: digests that are paths, or make other requests.
func TestCVE20243727Digests(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"))
	push(t, reg.URL, "x", "latest", i)
	for _, bad := range []string{
		"sha256:../../../../etc/passwd", "../../x", "sha256:" + strings.Repeat("a", 63) + "/", "sha256:" + strings.Repeat("A", 64), "md5:" + strings.Repeat("a", 32),
		"", "sha256:", "sha256:" + strings.Repeat("a", 65), "sha256:" + strings.Repeat("a", 64) + "?x=y", "tarsum+sha256:" + strings.Repeat("a", 64),
	} {
		for part, change := range map[string]func(*ocispec.Manifest){
			"layer":  func(m *ocispec.Manifest) { m.Layers[0].Digest = digest.Digest(bad) },
			"config": func(m *ocispec.Manifest) { m.Config.Digest = digest.Digest(bad) },
		} {
			m := i.manifest
			m.Layers = append([]ocispec.Descriptor(nil), m.Layers...)
			change(&m)
			raw, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			p := served(t, reg.URL, m.MediaType, raw)
			s := openStore(t, Config{})
			if _, err := s.Pull(t.Context(), PullRequest{Ref: p.Host + "/x"}); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s %q: %v", part, bad, err)
			}
			if n := p.Count("", "/blobs/"); n > 0 {
				t.Errorf("%s %q: %d blobs were asked for", part, bad, n)
			}
			s.clean(t)
		}
	}
}

// CVE-2021-21285: manifests that crash who reads them.
func TestCVE202121285MalformedManifests(t *testing.T) {
	testenv.Root(t)
	reg := testenv.EmptyRegistry(t)
	s := openStore(t, Config{})
	for _, raw := range []string{
		"null", "[]", "3", `""`, "{}", `{"config":null,"layers":null}`, `{"config":{},"layers":[{}]}`, `{"config":{},"layers":{}}`, `{"layers":[null]}`,
		`{"manifests":[null]}`, `{"manifests":[{"platform":null}]}`, `{"schemaVersion":1,"fsLayers":[],"history":[]}`, strings.Repeat("[", 200_000), strings.Repeat(`{"a":`, 100_000),
		"\x00\x01", `{"config":{"size":-1}}`, `{"config":{"size":1e400}}`, "{\"config\":{\"digest\":\"\xff\"}}",
	} {
		for _, mediaType := range []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.v1+prettyjws", "text/plain"} {
			p := served(t, reg.URL, mediaType, []byte(raw))
			if _, err := s.Pull(t.Context(), PullRequest{Ref: p.Host + "/x"}); !errdefs.IsInvalidArgument(err) && !errdefs.IsNotFound(err) {
				t.Errorf("%.40q as %s: %v", raw, mediaType, err)
			}
		}
	}
	s.clean(t)
}

// CVE-2021-41190: one document that is an index to one reader and a manifest to
// another.
func TestCVE202141190IndexOrManifest(t *testing.T) {
	testenv.Root(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"))
	push(t, reg.URL, "x", "latest", i)
	both := strings.Replace(string(i.raw), `{`, fmt.Sprintf(`{"manifests":[{"mediaType":%q,"digest":%q,"size":%d}],`, i.manifest.MediaType, i.descriptor().Digest, len(i.raw)), 1)
	s := openStore(t, Config{})
	for mediaType, raw := range map[string]string{
		ocispec.MediaTypeImageIndex: both, ocispec.MediaTypeImageManifest: both,
		"application/vnd.docker.distribution.manifest.list.v2+json": string(i.raw),
	} {
		p := served(t, reg.URL, mediaType, []byte(raw))
		if _, err := s.Pull(t.Context(), PullRequest{Ref: p.Host + "/x"}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", mediaType, err)
		}
	}
	s.clean(t)
}

// CVE-2023-25153: documents of 100 MB read whole.
func TestCVE202325153HugeDocuments(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"))
	push(t, reg.URL, "x", "latest", i)
	const huge = 100 << 20
	endless := func(announced bool) testenv.Fault {
		return func(_ *testenv.FaultProxy, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			if announced {
				w.Header().Set("Content-Length", fmt.Sprint(huge))
				w.Header().Set("Docker-Content-Digest", digest.FromString("x").String())
			}
			spaces := bytes.Repeat([]byte(" "), 1<<20)
			for range huge >> 20 {
				if _, err := w.Write(spaces); err != nil || r.Method == http.MethodHead {
					return
				}
			}
		}
	}
	for name, c := range map[string]struct {
		rule testenv.Rule
		is   func(error) bool
	}{
		"manifest":            {testenv.Rule{Path: "/manifests/", Fault: endless(true)}, errdefs.IsInvalidArgument},
		"manifest, no length": {testenv.Rule{Path: "/manifests/", Fault: endless(false)}, errdefs.IsInvalidArgument},
		"configuration":       {testenv.Rule{Path: "/blobs/" + i.id(), Fault: endless(true)}, errdefs.IsDataLoss},
		"layer":               {testenv.Rule{Path: "/blobs/" + i.manifest.Layers[0].Digest.String(), Fault: endless(false)}, errdefs.IsDataLoss},
	} {
		t.Run(name, func(t *testing.T) {
			p := testenv.Faults(t, reg.URL, c.rule)
			s := openStore(t, Config{})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := s.Pull(t.Context(), PullRequest{Ref: p.Host + "/x"})
			runtime.ReadMemStats(&after)
			if !c.is(err) {
				t.Errorf("%v", err)
			}
			// The server in this process has its share.
			if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 64 {
				t.Errorf("%d MiB were allocated", took)
			}
			s.clean(t)
		})
	}
	m := i.manifest
	m.Config.Size = huge
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	p := served(t, reg.URL, m.MediaType, raw)
	s := openStore(t, Config{})
	if _, err := s.Pull(t.Context(), PullRequest{Ref: p.Host + "/x"}); !errdefs.IsInvalidArgument(err) || p.Count("", "/blobs/") > 0 {
		t.Errorf("a configuration said to be huge: %v", err)
	}
	s.clean(t)
}

// CVE-2026-53488: labels of an image that a runtime takes for its own.
func TestCVE202653488LabelsOfImages(t *testing.T) {
	testenv.Root(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"), tarOf("b=2"))
	hostile := map[string]string{
		"nodeagent/layer": "x", "nodeagent/sync": "never", "nodeagent/bytes": "-1", "nodeagent/snapshotter": "../../x", "containerd.io/gc.root": "x",
		"containerd.io/snapshot/overlay.upperdir": "/etc", "containerd.io/restart.policy": "always", "io.containerd.runc.v2.options": "/bin/sh",
		"io.kubernetes.cri.sandbox-id": "x", "io.cri-containerd.pinned": "pinned", "io.nodectl.restart": "always", "nodeagent.owner": "nodectl",
	}
	i.config.Config.Labels, i.manifest.Annotations = hostile, hostile
	for n := range i.manifest.Layers {
		i.manifest.Layers[n].Annotations = hostile
	}
	i.seal()
	push(t, reg.URL, "x", "latest", i)
	s := openStore(t, Config{})
	res := s.mustPull(t, reg.Host+"/x")
	if res.Image.Pinned || len(res.Image.Tags) != 1 {
		t.Errorf("%+v", res.Image)
	}
	err := s.snapshots.Walk(context.Background(), func(_ context.Context, info snapshots.Info) error {
		for name, value := range info.Labels {
			if name != layerLabel || digest.Digest(value).Validate() != nil {
				t.Errorf("snapshot %s has label %s=%s", info.Name, name, value)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if usage, err := s.snapshots.Usage(context.Background(), res.Image.ChainID); err != nil || usage.Size <= 0 {
		t.Errorf("%+v, %v", usage, err)
	}
}
