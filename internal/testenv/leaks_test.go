package testenv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/leak"
)

// A mount, a cgroup and a descriptor that stay are each told.
func TestLeaksAreSeen(t *testing.T) {
	Root(t)
	Leaks(t)
	before, err := leak.Take()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("leak-test", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	f, err := os.Open(filepath.Join(dir, "."))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	after, err := leak.Take()
	if err != nil {
		t.Fatal(err)
	}
	found := strings.Join(before.Newer(after), "\n")
	for _, want := range []string{"mount: tmpfs leak-test on " + dir, "descriptor: " + dir} {
		if !strings.Contains(found, want) {
			t.Errorf("%q is not among:\n%s", want, found)
		}
	}
	if left := before.Newer(after, dir); len(left) != 0 {
		t.Errorf("still told though ignored: %v", left)
	}
}

func TestRegistryHasTheImages(t *testing.T) {
	Root(t)
	if testing.Short() {
		t.Skip("builds images")
	}
	Leaks(t)
	registry := Registry(t)
	if _, err := os.Stat(filepath.Join(registry.CertsDir, "registry.k8s.io", "hosts.toml")); err != nil {
		t.Error(err)
	}
}
