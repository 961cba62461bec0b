package unpack

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// BenchmarkLayer unpacks the layer that NODEAGENT_BENCH_LAYER names, into a
// directory and into an image.
func BenchmarkLayer(b *testing.B) {
	testenv.Root(b)
	layer := os.Getenv("NODEAGENT_BENCH_LAYER")
	if layer == "" {
		b.Skip("NODEAGENT_BENCH_LAYER names no layer")
	}
	open := func(b *testing.B) *os.File {
		b.Helper()
		f, err := os.Open(layer)
		if err != nil {
			b.Fatal(err)
		}
		return f
	}
	b.Run("directory", func(b *testing.B) {
		for b.Loop() {
			if _, err := Apply(b.Context(), open(b), Options{Dir: b.TempDir()}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("image", func(b *testing.B) {
		for b.Loop() {
			f, err := os.Create(filepath.Join(b.TempDir(), "image"))
			if err != nil {
				b.Fatal(err)
			}
			if _, _, err := ApplyImage(b.Context(), open(b), ImageOptions{File: f}); err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
	})
}
