package imageservice

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

// Images are loaded, made, saved and removed at one time, while garbage is
// collected: each either works or finds nothing, and nothing is left.
func TestMovesAtOnce(t *testing.T) {
	testenv.Root(t)
	s := openStore(t, Config{})
	base := tarOf("a/", "a/b=1", "c=1")
	var archives [][]byte
	for n := range 3 {
		i := newTestImage(asGzip, base, tarOf(fmt.Sprintf("own=%d", n)))
		archives = append(archives, writeTar(t, ociLayout(t, fmt.Sprintf("x:%d", n), i), asPlain))
	}
	rounds := 15
	if testing.Short() {
		rounds = 3
	}
	work := []func(n int) error{
		func(n int) error {
			_, err := s.Load(t.Context(), bytes.NewReader(archives[n%3]), "")
			return err
		},
		func(n int) error { return s.Save(t.Context(), io.Discard, []string{fmt.Sprintf("x:%d", n%3)}, "") },
		func(n int) error {
			_, _, err := s.Untag(t.Context(), fmt.Sprintf("x:%d", n%3), true)
			return err
		},
		func(n int) error {
			img, err := s.Image(t.Context(), fmt.Sprintf("x:%d", n%3))
			if err != nil {
				return err
			}
			_, err = s.Commit(t.Context(), CommitRequest{ImageID: img.ID, Ref: "made", Layer: func(w io.Writer) error {
				_, err := w.Write(tarOf(fmt.Sprintf("new=%d", n)))
				return err
			}})
			return err
		},
		func(int) error { return s.Collect(t.Context()) },
		func(n int) error {
			_, _, err := s.Prune(t.Context(), n%2 == 0, nil)
			return err
		},
	}
	var wg sync.WaitGroup
	for i, do := range work {
		for range 2 {
			wg.Go(func() {
				for n := range rounds {
					if err := do(n); err != nil && !errdefs.IsNotFound(err) {
						t.Errorf("work %d: %v", i, err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	list, err := s.Images(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range list {
		if len(s.files(t, img)) < 3 {
			t.Errorf("%s is not whole", img.ID)
		}
		if err := s.Remove(context.Background(), img.ID); err != nil {
			t.Error(err)
		}
	}
	s.mustBeEmpty(t)
}
