package imageservice

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/bigimages"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// BenchmarkPull pulls the images of `make bench-images`, which must have been
// built, from a registry on loopback into an empty store.
func BenchmarkPull(b *testing.B) {
	testenv.Root(b)
	layout, ok := bigimages.Cached(filepath.Join(testenv.CacheDir(), "bigimages"))
	if !ok {
		b.Skip("needs the images of make bench-images")
	}
	reg := testenv.StoredRegistry(b, layout+"-registry", func(base string) error {
		return images.Push(context.Background(), layout, base)
	})
	for _, ref := range []string{bigimages.A, bigimages.B, bigimages.C} {
		_, name, _ := strings.Cut(ref, "/")
		b.Run(name, func(b *testing.B) {
			size, err := bigimages.Sizes(layout, ref)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				b.StopTimer()
				s := openStore(b, Config{})
				b.StartTimer()
				s.mustPull(b, reg.Host+"/"+name)
				b.StopTimer()
				s.close()
				os.RemoveAll(s.root)
				b.StartTimer()
			}
			b.ReportMetric(float64(size.Compressed)/1e6, "MB-gzip")
			b.ReportMetric(float64(size.Bytes)/1e6, "MB-plain")
		})
	}
}
