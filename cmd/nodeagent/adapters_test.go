package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// A container is restored with what it had written, removed and linked.
func TestCheckpointLayer(t *testing.T) {
	testenv.Root(t)
	upper, lower, restored := t.TempDir(), t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(upper, name) }
	for _, err := range []error{
		os.WriteFile(filepath.Join(lower, "gone"), nil, 0o600),
		os.Mkdir(at("dir"), 0o750), os.WriteFile(at("dir/file"), []byte("text"), 0o640), os.Link(at("dir/file"), at("second")),
		unix.Setxattr(at("dir/file"), "user.mine", []byte("x"), 0),
		unix.Mknod(at("gone"), unix.S_IFCHR, 0), os.Symlink("/etc/shadow", at("link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var layer bytes.Buffer
	if err := packLayer(t.Context(), &layer, upper); err != nil {
		t.Fatal(err)
	}
	if err := applyLayer(t.Context(), io.NopCloser(&layer), restored, []string{lower}); err != nil {
		t.Fatal(err)
	}
	var first, second, gone unix.Stat_t
	for path, st := range map[string]*unix.Stat_t{"dir/file": &first, "second": &second, "gone": &gone} {
		if err := unix.Lstat(filepath.Join(restored, path), st); err != nil {
			t.Fatal(err)
		}
	}
	if first.Ino != second.Ino || first.Mode&0o777 != 0o640 {
		t.Errorf("two names of one file: %+v, %+v", first, second)
	}
	if gone.Mode&unix.S_IFMT != unix.S_IFCHR || gone.Rdev != 0 {
		t.Errorf("what was removed is %o", gone.Mode)
	}
	value := make([]byte, 8)
	if n, err := unix.Lgetxattr(filepath.Join(restored, "second"), "user.mine", value); err != nil || string(value[:n]) != "x" {
		t.Errorf("xattr %q, %v", value[:max(n, 0)], err)
	}
	if target, err := os.Readlink(filepath.Join(restored, "link")); err != nil || target != "/etc/shadow" {
		t.Errorf("link to %q, %v", target, err)
	}
}
