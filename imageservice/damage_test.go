package imageservice

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/opencontainers/go-digest"
)

// random is text that does not compress.
func random(size int) string {
	text := make([]byte, size)
	for i := range text {
		text[i] = byte('!' + rand.N(90))
	}
	return string(text)
}

func (s *testStore) blobPath(d digest.Digest) string {
	return filepath.Join(s.root, "images", "content", "blobs", d.Algorithm().String(), d.Encoded())
}

// TestDamagedBlobs pulls images of which blobs are there that another image
// has, and which are damaged, or lost: they are fetched again.
func TestDamagedBlobs(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	common := tarOf("common=" + random(10_000))
	a, b := newTestImage(asGzip, common), newTestImage(asGzip, tarOf("b=1"), common)
	push(t, reg.URL, "a", "latest", a)
	push(t, reg.URL, "b", "latest", b)
	blobs := []digest.Digest{a.descriptor().Digest, a.manifest.Config.Digest, a.manifest.Layers[0].Digest}
	for name, damage := range map[string]func(*testing.T, string){
		"flipped": flipBit,
		"lost": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Config{})
			s.mustPull(t, reg.Host+"/a")
			for _, d := range blobs {
				damage(t, s.blobPath(d))
			}
			s.mustPull(t, reg.Host+"/a")
			if img := s.mustPull(t, reg.Host+"/b").Image; len(s.files(t, img)) != 2 {
				t.Errorf("%v", s.files(t, img))
			}
			for _, d := range blobs {
				if _, err := s.content.Read(d, 1<<20); err != nil {
					t.Error(err)
				}
			}
			s.clean(t)
		})
	}
}

// TestGoodBlobsStay pulls an image of which one layer arrives damaged: what
// arrived of the others is not fetched again.
func TestGoodBlobsStay(t *testing.T) {
	testenv.Root(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"), tarOf("b="+random(3<<20)))
	push(t, reg.URL, "x", "latest", i)
	bad, good := i.manifest.Layers[0].Digest.String(), i.manifest.Layers[1].Digest.String()
	s := openStore(t, Config{})
	flip := testenv.Flip()
	p := testenv.Faults(t, reg.URL, testenv.Rule{Path: bad, Times: 1, Fault: func(p *testenv.FaultProxy, w http.ResponseWriter, r *http.Request, pass http.Handler) {
		testenv.Eventually(t, 10*time.Second, "the other layer to arrive", func() error {
			if _, ok := s.content.Size(digest.Digest(good)); !ok {
				return errors.New("it has not")
			}
			return nil
		})
		flip(p, w, r, pass)
	}})
	if _, err := s.Pull(t.Context(), PullRequest{Ref: p.Host + "/x"}); !errdefs.IsDataLoss(err) {
		t.Fatalf("%v", err)
	}
	s.mustPull(t, p.Host+"/x")
	if n := p.Count("GET", good); n != 1 {
		t.Errorf("the good layer was fetched %d times", n)
	}
}
