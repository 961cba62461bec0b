package imageservice

import (
	"errors"
	"sync"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// TestCollectRacesPulls: an image that a pull has brought is whole, however
// often garbage is collected meanwhile and others remove it.
func TestCollectRacesPulls(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "a", "latest", newTestImage(asGzip, tarOf("common=1"), tarOf("a=1")))
	push(t, reg.URL, "b", "latest", newTestImage(asGzip, tarOf("common=1"), tarOf("b=1")))
	s := openStore(t, Config{})
	stop := make(chan struct{})
	var collectors sync.WaitGroup
	collectors.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.Collect(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	var pullers sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		pullers.Go(func() {
			for range 30 {
				res, err := s.Pull(t.Context(), PullRequest{Ref: reg.Host + "/" + name})
				if err != nil {
					t.Error(err)
					return
				}
				key := "container-" + name
				_, err = s.snapshots.Prepare(t.Context(), key, res.Image.ChainID)
				err = errors.Join(err, s.snapshots.Remove(t.Context(), key), s.Remove(t.Context(), res.Image.ID))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	pullers.Wait()
	close(stop)
	collectors.Wait()
	if err := s.Collect(t.Context()); err != nil {
		t.Error(err)
	}
	if d := s.usage(t); d.Bytes != 0 {
		t.Errorf("left: %+v", d)
	}
}
