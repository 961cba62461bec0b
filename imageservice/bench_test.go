package imageservice

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// tarTree packs a folder.
func tarTree(b *testing.B, dir string) []byte {
	b.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil || !fi.Mode().IsRegular() && !fi.IsDir() {
			return err
		}
		h, err := tar.FileInfoHeader(fi, "")
		if err != nil {
			return err
		}
		h.Name, _ = filepath.Rel(filepath.Dir(filepath.Dir(dir)), path)
		if err := w.WriteHeader(h); err != nil || fi.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	w.Close()
	return buf.Bytes()
}

// BenchmarkPull pulls the Go distribution as four gzip layers from a registry
// on loopback into an empty store.
func BenchmarkPull(b *testing.B) {
	reg := testenv.EmptyRegistry(b)
	var layers [][]byte
	for _, dir := range []string{"bin", "pkg", "src", "test"} {
		if _, err := os.Stat(filepath.Join(runtime.GOROOT(), dir)); err == nil {
			layers = append(layers, tarTree(b, filepath.Join(runtime.GOROOT(), dir)))
		}
	}
	i := newTestImage(asGzip, layers...)
	push(b, reg.URL, "go", "latest", i)
	var compressed, plain int64
	for n, l := range i.manifest.Layers {
		compressed += l.Size
		plain += int64(len(layers[n]))
	}
	layers = nil
	runtime.GC()
	for b.Loop() {
		b.StopTimer()
		s := openStore(b, Config{})
		b.StartTimer()
		s.mustPull(b, reg.Host+"/go")
		b.StopTimer()
		s.close()
		os.RemoveAll(s.root)
		b.StartTimer()
	}
	b.ReportMetric(float64(compressed)/1e6, "MB-gzip")
	b.ReportMetric(float64(plain)/1e6, "MB-plain")
}
