package imageservice

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"

	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ociLayout is an OCI layout as files.
func ociLayout(t testing.TB, name string, i *testImage) map[string][]byte {
	t.Helper()
	desc := i.descriptor()
	if name != "" {
		desc.Annotations = map[string]string{nameAnnotation: name}
	}
	index := ocispec.Index{Manifests: []ocispec.Descriptor{desc}}
	index.SchemaVersion = 2
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"index.json": raw, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	for d, data := range i.blobs {
		files["blobs/sha256/"+d.Encoded()] = data
	}
	files["blobs/sha256/"+desc.Digest.Encoded()] = i.raw
	return files
}

func dockerSave(t testing.TB, i *testImage, tags ...string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	entry := dockerImage{Config: i.manifest.Config.Digest.Encoded() + ".json", RepoTags: tags}
	files[entry.Config] = i.blobs[i.manifest.Config.Digest]
	for _, l := range i.manifest.Layers {
		name := l.Digest.Encoded() + "/layer.tar"
		files[name] = i.blobs[l.Digest]
		entry.Layers = append(entry.Layers, name)
	}
	raw, err := json.Marshal([]dockerImage{entry})
	if err != nil {
		t.Fatal(err)
	}
	files["manifest.json"] = raw
	return files
}

func writeTar(t testing.TB, files map[string][]byte, c compression) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Name: "./" + name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		w.Write(data)
	}
	w.Close()
	data, _ := c(buf.Bytes())
	return data
}

func TestLoad(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	i := newTestImage(asGzip, tarOf("a=1"), tarOf("b=2"))
	plain := newTestImage(asPlain, tarOf("a=1"), tarOf("b=2"))
	for name, c := range map[string]struct {
		data    []byte
		tags    []string
		digests int
	}{
		"OCI tar":              {writeTar(t, ociLayout(t, "x:1", i), asPlain), []string{"docker.io/library/x:1"}, 1},
		"OCI tar.gz":           {writeTar(t, ociLayout(t, "x:1", i), asGzip), []string{"docker.io/library/x:1"}, 1},
		"OCI without a name":   {writeTar(t, ociLayout(t, "", i), asZstd), nil, 0},
		"docker save":          {writeTar(t, dockerSave(t, plain, "x:1", "y"), asPlain), []string{"docker.io/library/x:1", "docker.io/library/y:latest"}, 0},
		"docker save, gzipped": {writeTar(t, dockerSave(t, i, "x:1"), asGzip), []string{"docker.io/library/x:1"}, 0},
		"docker save, unnamed": {writeTar(t, dockerSave(t, plain), asPlain), nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Config{})
			img := s.mustLoad(t, c.data)[0].Image
			if img.ID != i.id() || !slices.Equal(img.Tags, c.tags) || len(img.Digests) != c.digests {
				t.Errorf("%+v", img)
			}
			if files := s.files(t, img); !maps.Equal(files, map[string]string{"a": "1", "b": "2"}) {
				t.Errorf("files %v", files)
			}
			s.close()
			s = reopenStore(t, s.root, Config{})
			if _, err := s.Image(t.Context(), img.ID); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLoadBroken(t *testing.T) {
	i := newTestImage(asGzip, tarOf("a=1"))
	layer := "blobs/sha256/" + i.manifest.Layers[0].Digest.Encoded()
	without := ociLayout(t, "x", i)
	delete(without, layer)
	flipped := ociLayout(t, "x", i)
	flipped[layer] = append([]byte{}, flipped[layer]...)
	flipped[layer][20] ^= 1
	escape, err := json.Marshal([]dockerImage{{Config: "../../../../etc/passwd"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		is   func(error) bool
	}{
		"not an archive":  {[]byte("hello hello hello"), errdefs.IsInvalidArgument},
		"a layer missing": {writeTar(t, without, asPlain), errdefs.IsNotFound},
		"a layer damaged": {writeTar(t, flipped, asPlain), errdefs.IsDataLoss},
		"names outside":   {writeTar(t, map[string][]byte{"manifest.json": escape}, asPlain), errdefs.IsNotFound},
		"not JSON":        {writeTar(t, map[string][]byte{"index.json": []byte("{")}, asPlain), errdefs.IsInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Config{})
			list, err := s.Load(t.Context(), bytes.NewReader(c.data), "")
			if !c.is(err) || len(list) > 0 {
				t.Errorf("%v, %v", list, err)
			}
			s.clean(t)
		})
	}
}

// fixTar computes the checksums of a tar's headers anew.
func fixTar(t testing.TB, data []byte) []byte {
	t.Helper()
	for off := 0; off+512 <= len(data); {
		h := data[off : off+512]
		if h[0] == 0 {
			break
		}
		size, err := strconv.ParseInt(strings.Trim(string(h[124:136]), "\x00 "), 8, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for i, b := range h {
			if i >= 148 && i < 156 {
				b = ' '
			}
			sum += int(b)
		}
		copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
		off += 512 + int(size+511)/512*512
	}
	return data
}
