package imageservice

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParseReference(t *testing.T) {
	sha := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string]string{
		"busybox":                        "docker.io/library/busybox:latest",
		"busybox:1.29-2":                 "docker.io/library/busybox:1.29-2",
		"me/x":                           "docker.io/me/x:latest",
		"index.docker.io/x":              "docker.io/library/x:latest",
		"localhost/x":                    "localhost/x:latest",
		"localhost:5000/x:y":             "localhost:5000/x:y",
		"[::1]:5000/x":                   "[::1]:5000/x:latest",
		"registry.k8s.io/pause:3.9":      "registry.k8s.io/pause:3.9",
		"x@" + sha:                       "docker.io/library/x@" + sha,
		"x:tag@" + sha:                   "docker.io/library/x@" + sha,
		"":                               "",
		"A B":                            "",
		"Upper":                          "",
		"x:":                             "",
		"x@sha256:abc":                   "",
		"-x":                             "",
		"http://x/y":                     "",
		"x/../y":                         "",
		strings.Repeat("a", 64):          "",
		strings.Repeat("a/", 3000) + "b": "",
		"x:" + strings.Repeat("t", 129):  "",
	} {
		got, err := parseReference(in)
		switch {
		case want == "" && !errdefs.IsInvalidArgument(err):
			t.Errorf("%q gives %v, %v", in, got, err)
		case want != "" && (err != nil || got.String() != want):
			t.Errorf("%q gives %v, %v; want %s", in, got, err, want)
		}
	}
}

const (
	descA = `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + hex64 + `","size":2}`
	descL = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:` + hex64 + `","size":2}`
	hex64 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	goodM = `{"schemaVersion":2,"config":` + descA + `,"layers":[` + descL + `]}`
	goodI = `{"schemaVersion":2,"manifests":[` + descL + `]}`
)

func TestParseDocument(t *testing.T) {
	manifest, index := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex
	for name, c := range map[string]struct {
		raw, mediaType string
		ok             bool
	}{
		"manifest":                 {goodM, manifest, true},
		"manifest of unknown type": {goodM, "application/octet-stream", true},
		"index":                    {goodI, index, true},
		"no layers":                {`{"config":` + descA + `}`, manifest, true},
		"both (CVE-2021-41190)":    {`{"config":` + descA + `,"layers":[` + descL + `],"manifests":[]}`, manifest, false},
		"both, without config":     {`{"layers":[],"manifests":[]}`, index, false},
		"neither":                  {`{}`, manifest, false},
		"index as manifest":        {goodI, manifest, false},
		"manifest as index":        {goodM, index, false},
		"says another type":        {strings.Replace(goodM, "{", `{"mediaType":"`+index+`",`, 1), manifest, false},
		"schema 1":                 {`{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}`, manifest, false},
		"digest with a path":       {strings.Replace(goodM, "sha256:"+hex64, "sha256:../../etc/passwd", 1), manifest, false},
		"digest of another kind":   {strings.Replace(goodM, "sha256:"+hex64, "md5:"+hex64[:32], 1), manifest, false},
		"negative size":            {strings.ReplaceAll(goodM, `"size":2`, `"size":-2`), manifest, false},
		"sizes that overflow":      {strings.Replace(goodM, `"layers":[`+descL+`]`, `"layers":[`+strings.ReplaceAll(descL+","+descL, `"size":2`, `"size":4611686018427387904`)+`]`, 1), manifest, false},
		"huge configuration":       {strings.Replace(goodM, `"size":2`, `"size":200000000`, 1), manifest, false},
		"a chart":                  {strings.Replace(goodM, "vnd.oci.image.config.v1+json", "vnd.cncf.helm.config.v1+json", 1), manifest, false},
		"layer of another kind":    {strings.Replace(goodM, "vnd.oci.image.layer.v1.tar+gzip", "json", 1), manifest, false},
		"too many layers":          {`{"config":` + descA + `,"layers":[` + strings.Repeat(descL+",", 600) + descL + `]}`, manifest, false},
		"not JSON":                 {"<html>", manifest, false},
		"huge":                     {`{"config":` + descA + `,"x":"` + strings.Repeat("x", maxDocument) + `"}`, manifest, false},
		"null":                     {"null", manifest, false},
	} {
		_, err := parseDocument([]byte(c.raw), c.mediaType)
		if c.ok != (err == nil) || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReference(f *testing.F) {
	for _, s := range []string{"busybox", "localhost:5000/x:y", "x@sha256:" + hex64, "A B", "[::1]:5000/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		named, err := parseReference(s)
		if err != nil {
			return
		}
		again, err := parseReference(named.String())
		if err != nil || again.String() != named.String() {
			t.Errorf("%q is %q is %v, %v", s, named, again, err)
		}
		repository(named.String())
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(goodM), ocispec.MediaTypeImageManifest)
	f.Add([]byte(goodI), ocispec.MediaTypeImageIndex)
	f.Add([]byte(`{"manifests":[{"platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}`), "")
	f.Fuzz(func(t *testing.T, raw []byte, mediaType string) {
		doc, err := parseDocument(raw, mediaType)
		if err != nil {
			return
		}
		if doc.isIndex() {
			choose(doc, platforms.Default())
		}
		for _, d := range append(doc.Layers, doc.Manifests...) {
			if d.Digest.Validate() != nil || d.Size < 0 || d.URLs != nil && !doc.isIndex() {
				t.Errorf("%+v passed", d)
			}
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:` + hex64 + `"]},"config":{"User":"0"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		img, err := parseConfig(raw)
		if err == nil {
			chainIDs(img.RootFS.DiffIDs)
		}
	})
}

func FuzzRecord(f *testing.F) {
	r := &record{Version: recordVersion, ID: "sha256:" + hex64, Manifest: "sha256:" + hex64}
	data, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err == nil {
			r.image()
		}
	})
}
