package imageservice

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice/imageconfig"
	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

// mustSave saves images and returns the archive.
func (s *testStore) mustSave(t testing.TB, refs ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := s.Save(t.Context(), &buf, refs, ""); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// mustLoad loads an archive.
func (s *testStore) mustLoad(t testing.TB, data []byte) []Loaded {
	t.Helper()
	loaded, err := s.Load(t.Context(), bytes.NewReader(data), "")
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// mustBeEmpty collects garbage and finds nothing left.
func (s *testStore) mustBeEmpty(t testing.TB) {
	t.Helper()
	if err := s.Collect(context.Background()); err != nil {
		t.Fatal(err)
	}
	if u, err := s.FilesystemUsage(context.Background()); err != nil || u.Bytes != 0 || u.Inodes != 0 {
		t.Errorf("left: %+v, %v", u, err)
	}
	s.clean(t)
}

func TestSaveAndLoad(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	base := tarOf("a/", "a/b=1", "c=1")
	push(t, reg.URL, "one", "v1", newTestImage(asGzip, base, tarOf("a/.wh.b", "d=2")))
	push(t, reg.URL, "two", "latest", newTestImage(asZstd, base))
	s := openStore(t, Config{})
	one, two := s.mustPull(t, reg.Host+"/one:v1").Image, s.mustPull(t, reg.Host+"/two").Image
	for _, tag := range []string{"local/one:a", "local/one:b"} {
		if err := s.Tag(t.Context(), one.ID, tag); err != nil {
			t.Fatal(err)
		}
	}
	// By a repository, which is all its tags, and by an ID, which is no name.
	data := s.mustSave(t, "local/one", two.ID)
	if again := s.mustSave(t, "local/one", two.ID); !bytes.Equal(data, again) {
		t.Error("the same images give other bytes")
	}
	for name, c := range map[string]compression{"plain": asPlain, "gzip": asGzip, "zstd": asZstd} {
		t.Run(name, func(t *testing.T) {
			packed, _ := c(data)
			other := openStore(t, Config{})
			loaded := other.mustLoad(t, packed)
			if len(loaded) != 2 || loaded[0].Image.ID != one.ID || loaded[1].Image.ID != two.ID || len(loaded[1].Tags) != 0 ||
				!slices.Equal(loaded[0].Tags, []string{"docker.io/local/one:a", "docker.io/local/one:b"}) {
				t.Errorf("%+v", loaded)
			}
			if got := other.files(t, loaded[0].Image); !maps.Equal(got, map[string]string{"c": "1", "d": "2"}) {
				t.Errorf("files %q", got)
			}
			// Blobs are those that came from the registry.
			if img, err := other.Image(t.Context(), one.ID); err != nil || img.Manifest != one.Manifest {
				t.Errorf("%+v, %v", img, err)
			}
			if back := other.mustSave(t, "local/one", two.ID); !bytes.Equal(data, back) {
				t.Error("saved again, it is another archive")
			}
		})
	}
	for _, ref := range []string{"nosuch", "local/one:nosuch", strings.Repeat("a", 64)} {
		if err := s.Save(t.Context(), io.Discard, []string{ref}, ""); !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := s.Save(t.Context(), io.Discard, []string{one.ID}, "linux/s390x"); !errdefs.IsNotFound(err) {
		t.Errorf("another platform: %v", err)
	}
}

// A docker archive alone, as docker before 25 and others write it, is what
// the archive is too.
func TestSavedIsDockerArchive(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "x", "v1", newTestImage(asGzip, tarOf("a=1"), tarOf("b=1")))
	s := openStore(t, Config{})
	img := s.mustPull(t, reg.Host+"/x:v1").Image
	data := s.mustSave(t, reg.Host+"/x:v1")
	// A tar that ends names sees no index.
	data = bytes.ReplaceAll(data, []byte("index.json"), []byte("index.none"))
	data = fixTar(t, data)
	other := openStore(t, Config{})
	loaded := other.mustLoad(t, data)
	if len(loaded) != 1 || loaded[0].Image.ID != img.ID || !slices.Equal(loaded[0].Tags, []string{reg.Host + "/x:v1"}) {
		t.Errorf("%+v", loaded)
	}
}

func TestLoadRefuses(t *testing.T) {
	testenv.Root(t)
	i := newTestImage(asGzip, tarOf("a=1"), tarOf("b=1"))
	layer := "blobs/sha256/" + i.manifest.Layers[1].Digest.Encoded()
	config := "blobs/sha256/" + i.manifest.Config.Digest.Encoded()
	change := func(f func(map[string][]byte)) map[string][]byte {
		files := ociLayout(t, "x:v1", i)
		f(files)
		return files
	}
	saved := dockerSave(t, i, "x:v1")
	climbing := newTestImage(asGzip, tarOf("../../etc/evil=1"))
	for name, files := range map[string]map[string][]byte{
		"nothing":          {},
		"no index":         change(func(f map[string][]byte) { delete(f, "index.json") }),
		"missing layer":    change(func(f map[string][]byte) { delete(f, layer) }),
		"wrong layer":      change(func(f map[string][]byte) { f[layer] = append([]byte{}, f[layer][1:]...) }),
		"other layer":      change(func(f map[string][]byte) { f[layer], _ = asGzip(tarOf("c=1")) }),
		"wrong config":     change(func(f map[string][]byte) { f[config] = []byte("{}") }),
		"huge index":       change(func(f map[string][]byte) { f["index.json"] = bytes.Repeat([]byte(" "), maxDocument+1) }),
		"index is no JSON": change(func(f map[string][]byte) { f["index.json"] = []byte("x") }),
		"climbing digest": change(func(f map[string][]byte) {
			f["index.json"] = bytes.ReplaceAll(f["index.json"], []byte("sha256:"), []byte("sha256:../"))
		}),
		"bad name":           ociLayout(t, "Not A Name", i),
		"climbing layer":     ociLayout(t, "x:v1", climbing),
		"docker, no config":  {"manifest.json": saved["manifest.json"]},
		"docker, many":       {"manifest.json": []byte("[" + strings.Repeat("{},", maxImages) + "{}]")},
		"docker, many names": dockerSave(t, i, strings.Fields(strings.Repeat("x:1 ", maxImages+1))...),
		"docker, outside":    {"manifest.json": []byte(`[{"Config":"../../etc/passwd","Layers":["/etc/passwd"]}]`)},
		"docker, bad layers": {"manifest.json": []byte(`[{"Config":"c","Layers":["l"]}]`), "c": i.blobs[i.manifest.Config.Digest], "l": []byte("x")},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Config{})
			data := writeTar(t, files, asPlain)
			if _, err := s.Load(t.Context(), bytes.NewReader(data), ""); err == nil {
				t.Error("it is loaded")
			}
			s.mustBeEmpty(t)
		})
	}
	s := openStore(t, Config{})
	for name, data := range map[string][]byte{"empty": {}, "no tar": []byte(strings.Repeat("no tar ", 200)), "cut": s.cutArchive(t, i)} {
		if _, err := s.Load(t.Context(), bytes.NewReader(data), ""); err == nil {
			t.Errorf("%s: it is loaded", name)
		}
		s.mustBeEmpty(t)
	}
}

// cutArchive is an archive without its end.
func (s *testStore) cutArchive(t testing.TB, i *testImage) []byte {
	data := writeTar(t, ociLayout(t, "x:v1", i), asGzip)
	return data[:len(data)/2]
}

func TestPushImage(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	from, to := testenv.EmptyRegistry(t), testenv.EmptyRegistry(t)
	var puts atomic.Int32
	door := newProxy(t, to.URL, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/") {
			puts.Add(1)
		}
		return basicAuth(w, r)
	})
	i := newTestImage(asGzip, tarOf("a=1"), tarOf("b=1"))
	push(t, from.URL, "x", "v1", i)
	s := openStore(t, Config{})
	img := s.mustPull(t, from.Host+"/x:v1").Image
	auth := Auth{Username: "me", Password: "secret", ServerAddress: door.host}
	send := func(tag string) (PushResult, []Progress, error) {
		if err := s.Tag(t.Context(), img.ID, tag); err != nil {
			t.Fatal(err)
		}
		var told []Progress
		res, err := s.Push(t.Context(), PushRequest{Ref: tag, Auth: auth, Progress: func(p Progress) { told = append(told, p) }})
		return res, told, err
	}
	res, told, err := send(door.host + "/first/x:v1")
	if err != nil || res.Digest != img.Manifest || res.Size != int64(len(i.raw)) {
		t.Fatalf("%+v, %v", res, err)
	}
	if statuses(told) != "Preparing Pushed Pushing Waiting" || puts.Load() != 3 {
		t.Errorf("told %s, %d uploads", statuses(told), puts.Load())
	}
	// What another repository has is mounted; what is there is not sent.
	if _, told, err = send(door.host + "/second/x:v1"); err != nil || statuses(told) != "Mounted from first/x Preparing Waiting" || puts.Load() != 3 {
		t.Errorf("told %s, %d uploads: %v", statuses(told), puts.Load(), err)
	}
	if _, told, err = send(door.host + "/second/x:v2"); err != nil || statuses(told) != "Layer already exists Preparing Waiting" || puts.Load() != 3 {
		t.Errorf("told %s, %d uploads: %v", statuses(told), puts.Load(), err)
	}
	if now, err := s.Image(t.Context(), img.ID); err != nil || !slices.Contains(now.Digests, door.host+"/second/x@"+res.Digest) {
		t.Errorf("%+v, %v", now, err)
	}
	other := openStore(t, Config{})
	got, err := other.Pull(t.Context(), PullRequest{Ref: door.host + "/second/x:v2", Auth: auth})
	if err != nil || got.Image.ID != img.ID || got.Digest != res.Digest {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Push(t.Context(), PushRequest{Ref: door.host + "/nosuch:v1"}); !errdefs.IsNotFound(err) {
		t.Errorf("no such tag: %v", err)
	}
	if _, err := s.Push(t.Context(), PushRequest{Ref: door.host + "/first/x:v1", Auth: Auth{Username: "me", Password: "wrong"}}); !errdefs.IsUnauthorized(err) {
		t.Errorf("wrong password: %v", err)
	}
}

// statuses are the words told, once each.
func statuses(told []Progress) string {
	set := map[string]bool{}
	for _, p := range told {
		set[p.Status] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(set)), " ")
}

// A layer that came plain is compressed for the registry, and kept so.
func TestPushCompresses(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	s := openStore(t, Config{})
	i := newTestImage(asPlain, tarOf("a="+strings.Repeat("x", 10000)))
	loaded := s.mustLoad(t, writeTar(t, dockerSave(t, i, reg.Host+"/plain:v1"), asPlain))
	res, err := s.Push(t.Context(), PushRequest{Ref: reg.Host + "/plain:v1"})
	if err != nil {
		t.Fatal(err)
	}
	now, err := s.Image(t.Context(), loaded[0].Image.ID)
	if err != nil || now.Manifest != res.Digest || now.ContentSize >= 10000 {
		t.Errorf("%+v, %v", now, err)
	}
	if again, err := s.Push(t.Context(), PushRequest{Ref: reg.Host + "/plain:v1"}); err != nil || again != res {
		t.Errorf("%+v, %v", again, err)
	}
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, n := s.content.Usage(); n != 3 {
		t.Errorf("%d blobs", n)
	}
	got := openStore(t, Config{}).mustPull(t, reg.Host+"/plain:v1")
	if got.Image.ID != i.id() {
		t.Errorf("%+v", got)
	}
}

// Blobs that are not kept are made anew from the layers' files.
func TestBlobsMadeAnew(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	layer := tarOf("a/", "a/b=1", "c=1")
	zipped, other := newTestImage(asGzip, layer), newTestImage(asZstd, layer)
	push(t, reg.URL, "x", "gzip", zipped)
	other.config.Config.User = "other"
	push(t, reg.URL, "x", "zstd", other.seal())
	s := openStore(t, Config{})
	s.mustPull(t, reg.Host+"/x:gzip")
	second := s.mustPull(t, reg.Host+"/x:zstd").Image
	if _, ok := s.content.Size(other.manifest.Layers[0].Digest); ok {
		t.Fatal("the layer was fetched twice")
	}
	// In the other form while that is there, from the files after that.
	for _, gone := range []bool{false, true} {
		if gone {
			if err := s.content.Delete(zipped.manifest.Layers[0].Digest); err != nil {
				t.Fatal(err)
			}
		}
		data := s.mustSave(t, second.ID)
		if again := s.mustSave(t, second.ID); !bytes.Equal(data, again) {
			t.Error("made anew, it is not the same")
		}
		into := openStore(t, Config{})
		loaded := into.mustLoad(t, data)
		if got := into.files(t, loaded[0].Image); !maps.Equal(got, map[string]string{"a/b": "1", "c": "1"}) || loaded[0].Image.Config.Config.User != "other" {
			t.Errorf("files %q", got)
		}
		if !gone && loaded[0].Image.ID != second.ID {
			t.Error("it is another image")
		}
	}
	// The registry it came from has what we lack.
	if err := s.Tag(t.Context(), second.ID, reg.Host+"/x:again"); err != nil {
		t.Fatal(err)
	}
	if res, err := s.Push(t.Context(), PushRequest{Ref: reg.Host + "/x:again"}); err != nil || res.Digest != second.Manifest {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestCommitImage(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "x", "v1", newTestImage(asGzip, tarOf("a=1", "b=1")))
	s := openStore(t, Config{})
	base := s.mustPull(t, reg.Host+"/x:v1").Image
	users := &user{image: base.ID}
	s.SetInUse(users)
	// Its container outlives its name.
	if err := s.Remove(t.Context(), base.ID); err != nil {
		t.Fatal(err)
	}
	img, err := s.Commit(t.Context(), CommitRequest{
		ImageID: base.ID, Ref: "made:v1", Author: "me", Comment: "why", CreatedBy: "sh",
		Config:  func(c *imageconfig.Config) { c.Cmd = []string{"sh"} },
		Changes: []string{"ENV A=1", "USER you"},
		Layer:   func(w io.Writer) error { _, err := w.Write(tarOf(".wh.a", "c=2")); return err },
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.files(t, img); !maps.Equal(got, map[string]string{"b": "1", "c": "2"}) {
		t.Errorf("files %q", got)
	}
	_, steps, err := s.History(t.Context(), "made:v1")
	if err != nil || len(steps) != 1 || steps[0].Comment != "why" || steps[0].CreatedBy != "sh" || steps[0].Created.IsZero() || steps[0].Size >= img.Size {
		t.Errorf("%+v, %v", steps, err)
	}
	if c := img.Config; c.Author != "me" || c.Config.User != "you" || !slices.Equal(c.Config.Env, []string{"A=1"}) || !slices.Equal(c.Config.Cmd, []string{"sh"}) {
		t.Errorf("%+v", c)
	}
	users.leave()
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := openStore(t, Config{})
	if loaded := back.mustLoad(t, s.mustSave(t, "made:v1")); loaded[0].Image.ID != img.ID {
		t.Errorf("%+v", loaded)
	}
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	for name, req := range map[string]CommitRequest{
		"no image":   {ImageID: base.ID, Layer: func(io.Writer) error { return nil }},
		"bad change": {Changes: []string{"RUN x"}, Layer: func(io.Writer) error { return nil }},
		"bad name":   {Ref: "Not a name", Layer: func(io.Writer) error { return nil }},
		"bad layer":  {Layer: func(w io.Writer) error { _, err := w.Write(tarOf("../x=1")); return err }},
	} {
		if _, err := s.Commit(t.Context(), req); err == nil {
			t.Errorf("%s: it is made", name)
		}
	}
	s.mustBeEmpty(t)
}

func TestImportRoot(t *testing.T) {
	testenv.Root(t)
	s := openStore(t, Config{})
	root := tarOf("bin/", "bin/sh=shell", "etc/", "etc/os=1")
	var ids []string
	for name, c := range map[string]compression{"plain": asPlain, "gzip": asGzip, "zstd": asZstd} {
		packed, _ := c(root)
		img, err := s.ImportRoot(t.Context(), bytes.NewReader(packed), ImportRequest{
			Ref: "root:" + name, Changes: []string{`CMD ["/bin/sh"]`}, Comment: "Imported from -", Platform: "linux/arm64",
		})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, img.ChainID)
		if got := s.files(t, img); !maps.Equal(got, map[string]string{"bin/sh": "shell", "etc/os": "1"}) {
			t.Errorf("files %q", got)
		}
		if img.Config.Architecture != "arm64" || !slices.Equal(img.Config.Config.Cmd, []string{"/bin/sh"}) || img.Config.History[0].Comment != "Imported from -" {
			t.Errorf("%+v", img.Config)
		}
	}
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("layers %q", ids)
	}
	pruned, bytesBack, err := s.Prune(t.Context(), true, func(i Image) bool { return true })
	if err != nil || len(pruned) != 3 || bytesBack <= 0 {
		t.Errorf("%+v, %d, %v", pruned, bytesBack, err)
	}
	for name, data := range map[string][]byte{"no tar": []byte("nonsense nonsense"), "climbing": tarOf("../x=1"), "bzip2": []byte("BZh91AY")} {
		if _, err := s.ImportRoot(t.Context(), bytes.NewReader(data), ImportRequest{}); !errdefs.IsInvalidArgument(err) && !errdefs.IsDataLoss(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.mustBeEmpty(t)
}

// What lay on the disk and has changed is not given on, and neither are bombs
// taken in.
func TestDamageAndBombs(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"))
	push(t, reg.URL, "x", "v1", i)
	s := openStore(t, Config{Limits: unpack.Limits{Bytes: 1 << 20}})
	img := s.mustPull(t, reg.Host+"/x:v1").Image
	blob := i.manifest.Layers[0].Digest
	path := filepath.Join(s.root, "images", "content", "blobs", "sha256", blob.Encoded())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), io.Discard, []string{img.ID}, ""); !errdefs.IsDataLoss(err) {
		t.Errorf("save: %v", err)
	}
	other := testenv.EmptyRegistry(t)
	if err := s.Tag(t.Context(), img.ID, other.Host+"/x:v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Push(t.Context(), PushRequest{Ref: other.Host + "/x:v1"}); err == nil {
		t.Error("a damaged layer is pushed")
	}
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	bomb, _ := asZstd(tarOf("zeros=" + strings.Repeat("\x00", 2<<20)))
	if _, err := s.ImportRoot(t.Context(), bytes.NewReader(bomb), ImportRequest{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("import: %v", err)
	}
	packed, _ := asGzip(writeTar(t, ociLayout(t, "bomb:v1", newTestImage(asZstd, tarOf("zeros="+strings.Repeat("\x00", 2<<20)))), asPlain))
	if _, err := s.Load(t.Context(), bytes.NewReader(packed), ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("load: %v", err)
	}
	s.mustBeEmpty(t)
}

// TestImportURL: a server is asked by us, and one that stops in the middle
// leaves nothing.
func TestImportURL(t *testing.T) {
	testenv.Root(t)
	s := openStore(t, Config{})
	root := tarOf("etc/", "etc/os="+strings.Repeat("x", 4096))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/root.tar":
			_, _ = w.Write(root)
		case "/cut.tar":
			w.Header().Set("Content-Length", strconv.Itoa(len(root)))
			_, _ = w.Write(root[:len(root)/2])
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	img, err := s.ImportURL(t.Context(), server.URL+"/root.tar", ImportRequest{Ref: "web"})
	if err != nil || len(s.files(t, img)["etc/os"]) != 4096 {
		t.Errorf("%+v, %v", img, err)
	}
	if err := s.Remove(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{server.URL + "/cut.tar", server.URL + "/nosuch", "http://127.0.0.1:1/x", "http://%zz"} {
		if _, err := s.ImportURL(t.Context(), bad, ImportRequest{}); err == nil {
			t.Errorf("%s is imported", bad)
		}
	}
	s.mustBeEmpty(t)
}

// CVE-2023-25153, CVE-2021-21285: an archive whose documents are huge, or
// nothing, does not exhaust the memory of who loads it.
func TestCVE202325153HugeArchives(t *testing.T) {
	testenv.Root(t)
	s := openStore(t, Config{})
	i := newTestImage(asGzip, tarOf("a=1"))
	i.config.Author = strings.Repeat("x", maxDocument)
	i.seal()
	huge := ociLayout(t, "x:v1", i)
	saved := dockerSave(t, i, "x:v1")
	many := dockerSave(t, newTestImage(asGzip, tarOf("a=1")), "x:v1")
	many["manifest.json"] = append(bytes.Repeat([]byte(" "), maxDocument), many["manifest.json"]...)
	for name, files := range map[string]map[string][]byte{
		"configuration": huge, "docker's configuration": saved, "manifest.json": many,
		"no documents": {"index.json": []byte(`{"manifests":[{}]}`), "oci-layout": {}},
		"null":         {"manifest.json": []byte(`[null]`)},
	} {
		if _, err := s.Load(t.Context(), bytes.NewReader(writeTar(t, files, asPlain)), ""); err == nil {
			t.Errorf("%s: it is loaded", name)
		}
		s.mustBeEmpty(t)
	}
}

// A tag that moves leaves the image it was on without one, until pruned.
func TestDangling(t *testing.T) {
	testenv.Root(t)
	s := openStore(t, Config{})
	first, err := s.ImportRoot(t.Context(), bytes.NewReader(tarOf("a=1")), ImportRequest{Ref: "x"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.ImportRoot(t.Context(), bytes.NewReader(tarOf("a=2")), ImportRequest{Ref: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if img, err := s.Image(t.Context(), first.ID); err != nil || len(img.Tags) != 0 {
		t.Errorf("%+v, %v", img, err)
	}
	pruned, _, err := s.Prune(t.Context(), false, nil)
	if err != nil || len(pruned) != 1 || pruned[0].ID != first.ID {
		t.Errorf("%+v, %v", pruned, err)
	}
	if _, err := s.Image(t.Context(), second.ID); err != nil {
		t.Error(err)
	}
}

// FuzzLoad: no archive of documents does worse than fail.
func FuzzLoad(f *testing.F) {
	i := newTestImage(asPlain, tarOf("a=1"))
	for _, files := range []map[string][]byte{ociLayout(f, "x:v1", i), dockerSave(f, i, "x:v1")} {
		for _, name := range []string{"index.json", "manifest.json"} {
			if files[name] != nil {
				f.Add(name, files[name])
			}
		}
	}
	f.Fuzz(func(t *testing.T, name string, doc []byte) {
		files := memoryArchive{name: doc, "c": i.blobs[i.manifest.Config.Digest], "l": tarOf("a=1")}
		list, err := (&Store{}).importables(files)
		if err != nil {
			return
		}
		for _, one := range list {
			if err := one.root.Digest.Validate(); err != nil || one.root.Size < 0 {
				t.Errorf("%+v", one.root)
			}
		}
	})
}

// memoryArchive is an archive of files.
type memoryArchive map[string][]byte

func (m memoryArchive) Open(name string) (io.ReadCloser, int64, error) {
	data, ok := m[filepath.Clean(name)]
	if !ok {
		return nil, 0, errdefs.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
}

func (m memoryArchive) Close() error { return nil }
