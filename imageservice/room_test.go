package imageservice

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"golang.org/x/sys/unix"
)

// TestRoomForLayers pulls where layers go to a filesystem of their own, which
// has no room for them: nothing is transferred.
func TestRoomForLayers(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "x", "latest", newTestImage(asGzip, tarOf("a="+random(3<<20))))
	p := newProxy(t, reg.URL, nil)
	root := t.TempDir()
	layers := filepath.Join(root, "snapshots")
	if err := os.Mkdir(layers, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", layers, "tmpfs", 0, "size=18m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(layers, unix.MNT_DETACH)
	s := reopenStore(t, root, Config{})
	defer s.close()
	if _, err := s.Pull(t.Context(), PullRequest{Ref: p.host + "/x"}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("%v", err)
	}
	// Of the configuration.
	if n := p.count("/blobs/"); n != 1 {
		t.Errorf("%d blobs were asked for", n)
	}
}
