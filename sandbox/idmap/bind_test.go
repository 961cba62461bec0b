package idmap

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// What is mounted below a folder is seen where it is bound, or not, and stays where it was when the bind is taken away.
func TestBind(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir := t.TempDir()
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "target")
	below := filepath.Join(source, "below")
	for _, folder := range []string{below, target} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("below", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(below, 0) })
	if err := os.WriteFile(filepath.Join(below, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		req  BindRequest
		seen bool
	}{{BindRequest{Below: true}, true}, {BindRequest{}, false}, {BindRequest{ReadOnly: true}, false}} {
		test.req.Source, test.req.Target = source, target
		if err := Bind(test.req); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(target, "below", "file")); (err == nil) != test.seen {
			t.Errorf("%+v: %v", test.req, err)
		}
		err := os.WriteFile(filepath.Join(target, "written"), nil, 0o600)
		if errors.Is(err, unix.EROFS) != test.req.ReadOnly {
			t.Errorf("%+v: %v", test.req, err)
		}
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(below, "file")); err != nil {
			t.Fatal(err)
		}
	}
	for _, wrong := range []string{filepath.Join(dir, "nowhere"), filepath.Join(below, "file")} {
		if err := Bind(BindRequest{Source: wrong, Target: target}); err == nil {
			t.Errorf("%s is bound", wrong)
		}
	}
}
