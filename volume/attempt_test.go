package volume

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"golang.org/x/sys/unix"
)

// A server that does not answer holds up nobody but who wants its files, and
// those no longer than it may; what it gives in the end is given back.
func TestServerThatDoesNotAnswer(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	s := newStore(t)
	s.patience = 50 * time.Millisecond
	release, asked := make(chan struct{}), atomic.Int32{}
	s.mount = func(m mountRequest) error {
		asked.Add(1)
		<-release
		return unix.Mount("late", m.target, "tmpfs", 0, "")
	}
	options := map[string]string{"type": "nfs", "device": ":/export", "o": "addr=192.0.2.1,rw"}
	if _, _, err := s.Create(Spec{Name: "far", Options: options}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := s.Mount(t.Context(), "far")
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "failed to mount local volume: mount :/export:") ||
			!strings.Contains(err.Error(), "data: addr=192.0.2.1: the server does not answer") {
			t.Errorf("got %v", err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if _, _, err := s.Create(Spec{Name: "near"}); err != nil {
		t.Error(err)
	}
	if size, err := s.Size(t.Context(), "far"); err != nil || size != 0 {
		t.Errorf("size %d, %v", size, err)
	}
	if err := s.Remove("far", nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removed: %v", err)
	}
	close(release)
	testenv.Eventually(t, 10*time.Second, "the volume can be removed", func() error { return s.Remove("far", nil) })
}

// What a server gives in time stays, and the kernel is not asked again; an
// error of it says no password.
func TestNetworkedVolumes(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	s := newStore(t)
	asked := 0
	s.mount = func(m mountRequest) error {
		if asked++; m.kind == "cifs" {
			return unix.EACCES
		}
		if m.kind != "nfs4" || m.data != "addr=127.0.0.1,soft" {
			return errors.New("asked for " + m.kind + " with " + m.data)
		}
		return unix.Mount("near", m.target, "tmpfs", 0, "")
	}
	for name, options := range map[string]map[string]string{
		"home":  {"type": "nfs4", "device": ":/home", "o": "addr=localhost,soft"},
		"share": {"type": "cifs", "device": "//127.0.0.1/share", "o": "addr=127.0.0.1,username=me,password=hunter2"},
	} {
		if _, _, err := s.Create(Spec{Name: name, Options: options}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := s.Mount(t.Context(), "home"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Mount(t.Context(), "share")
	if !errors.Is(err, unix.EACCES) || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "password=********") || asked != 2 {
		t.Errorf("asked %d times, got %v", asked, err)
	}
	if err := s.Remove("home", nil); err != nil {
		t.Error(err)
	}
}
