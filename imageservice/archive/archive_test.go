package archive

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// sample is a tar of a file, links to it, and a link that leads out.
func sample(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []tar.Header{
		{Name: "./a/layer.tar", Typeflag: tar.TypeReg, Size: 5},
		{Name: "b/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../a/layer.tar"},
		{Name: "c", Typeflag: tar.TypeLink, Linkname: "b/layer.tar"},
		{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "../../../../etc/passwd"},
		{Name: "loop", Typeflag: tar.TypeSymlink, Linkname: "loop"},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, "hello")
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func open(t testing.TB, data []byte) (Archive, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "x.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	return File(f)
}

func TestTar(t *testing.T) {
	a, err := open(t, sample(t))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, name := range []string{"a/layer.tar", "/a//layer.tar", "b/layer.tar", "c"} {
		r, size, err := a.Open(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil || string(data) != "hello" || size != 5 {
			t.Errorf("%s: %q, %d, %v", name, data, size, err)
		}
	}
	for _, name := range []string{"out", "loop", "none", "", "../a"} {
		if _, _, err := a.Open(name); !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLongNames(t *testing.T) {
	for _, h := range []tar.Header{
		{Name: strings.Repeat("n", maxName+1), Typeflag: tar.TypeReg},
		{Name: "n", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("n", maxName+1)},
	} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, buf.Bytes()); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v", err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(sample(f))
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := open(t, data)
		if err != nil {
			return
		}
		defer a.Close()
		for _, name := range []string{"index.json", "manifest.json", "a/layer.tar", "c"} {
			if r, _, err := a.Open(name); err == nil {
				_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
				r.Close()
			}
		}
	})
}
