package pack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"golang.org/x/sys/unix"
)

// packed writes a directory and returns the tar.
func packed(t testing.TB, dir string, opts Options) ([]byte, error) {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var buf bytes.Buffer
	err = Tree(t.Context(), &buf, root, opts)
	return buf.Bytes(), err
}

// entries are the headers of a tar by name.
func entries(t testing.TB, data []byte) map[string]*tar.Header {
	t.Helper()
	all := map[string]*tar.Header{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = h
	}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// upper makes the upper directory of an overlay, with one of everything.
func upper(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t,
		os.Chmod(dir, 0o755),
		os.MkdirAll(in("etc/deep"), 0o700), os.WriteFile(in("etc/file"), []byte("content"), 0o640),
		os.Chown(in("etc/file"), 1000, 1001), os.Chmod(in("etc/file"), 0o750|os.ModeSetuid),
		unix.Setxattr(in("etc/file"), "user.note", []byte("kept"), 0),
		unix.Setxattr(in("etc/file"), "trusted.secret", []byte("dropped"), 0),
		os.Link(in("etc/file"), in("etc/same")), os.Symlink("/nowhere", in("etc/link")),
		unix.Mknod(in("etc/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mkfifo(in("etc/pipe"), 0o600),
		unix.Mknod(in("gone"), unix.S_IFCHR, 0),
		unix.Setxattr(in("etc/deep"), "trusted.overlay.opaque", []byte("y"), 0),
		os.Chtimes(in("etc/file"), time.Time{}, time.Unix(1e9, 5)),
	)
	return dir
}

func TestLayer(t *testing.T) {
	testenv.Root(t)
	dir := upper(t)
	data, err := packed(t, dir, Options{Layer: true})
	must(t, err)
	again, err := packed(t, dir, Options{Layer: true})
	must(t, err)
	if !bytes.Equal(data, again) {
		t.Error("the same tree gives other bytes")
	}
	got := entries(t, data)
	want := []string{"./", ".wh.gone", "etc/", "etc/deep/", "etc/deep/.wh..wh..opq", "etc/file", "etc/link", "etc/null", "etc/pipe", "etc/same"}
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
	f := got["etc/file"]
	if f.Uid != 1000 || f.Gid != 1001 || f.Mode != 0o4750 || !f.ModTime.Equal(time.Unix(1e9, 0)) || f.Uname != "" {
		t.Errorf("%+v", f)
	}
	if !maps.Equal(f.PAXRecords, map[string]string{"SCHILY.xattr.user.note": "kept"}) {
		t.Errorf("records %q", f.PAXRecords)
	}
	if l := got["etc/same"]; l.Typeflag != tar.TypeLink || l.Linkname != "etc/file" {
		t.Errorf("%+v", l)
	}
	if n := got["etc/null"]; n.Typeflag != tar.TypeChar || n.Devmajor != 1 || n.Devminor != 3 {
		t.Errorf("%+v", n)
	}
	// What was packed unpacks to the same, and packs to the same.
	back := t.TempDir()
	below := t.TempDir()
	must(t, os.WriteFile(filepath.Join(below, "gone"), nil, 0o600))
	lower, err := unpack.OpenLower(below)
	must(t, err)
	defer lower.Close()
	_, err = unpack.Apply(t.Context(), io.NopCloser(bytes.NewReader(data)), unpack.Options{
		Dir: back, Lowers: func(context.Context) ([]*unpack.Lower, error) { return []*unpack.Lower{lower}, nil },
	})
	must(t, err)
	third, err := packed(t, back, Options{Layer: true})
	must(t, err)
	if !bytes.Equal(data, third) {
		t.Errorf("after a round trip: %q", slices.Sorted(maps.Keys(entries(t, third))))
	}
}

func TestTree(t *testing.T) {
	testenv.Root(t)
	dir := upper(t)
	data, err := packed(t, dir, Options{Owner: func(uid, gid uint32) (int, int) { return int(uid) + 1, int(gid) + 2 }})
	must(t, err)
	got := entries(t, data)
	if f := got["etc/file"]; f.Uid != 1001 || f.Gid != 1003 {
		t.Errorf("owner %d:%d", f.Uid, f.Gid)
	}
	// A view has no whiteouts, and a device is one.
	if got[".wh.gone"] != nil || got["gone"] == nil || got["etc/deep/.wh..wh..opq"] != nil {
		t.Errorf("got %q", slices.Sorted(maps.Keys(got)))
	}
}

// What a layer cannot hold is said, not lost.
func TestRefusals(t *testing.T) {
	testenv.Root(t)
	for name, make := range map[string]func(dir string) error{
		"whiteout by name": func(dir string) error { return os.WriteFile(filepath.Join(dir, ".wh.passwd"), nil, 0o600) },
		"renamed": func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "d"), 0o700), unix.Setxattr(filepath.Join(dir, "d"), "trusted.overlay.redirect", []byte("/e"), 0))
		},
		"content below": func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "f"), nil, 0o600), unix.Setxattr(filepath.Join(dir, "f"), "trusted.overlay.metacopy", nil, 0))
		},
		"too big": func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "f"), nil, 0o600), os.Truncate(filepath.Join(dir, "f"), maxBytes+1))
		},
		"too deep": func(dir string) error {
			return os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", maxDepth+2)), 0o700)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, make(dir))
			_, err := packed(t, dir, Options{Layer: true})
			if !errdefs.IsInvalidArgument(err) && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A container that swaps what is read for links and pipes neither leads the
// reader out nor holds it up (CVE-2026-41568, CVE-2026-42306).
func TestCVE202641568Swapped(t *testing.T) {
	testenv.Root(t)
	outside, dir := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("of the host"), 0o600), os.Mkdir(filepath.Join(dir, "real"), 0o700))
	in := func(name string) string { return filepath.Join(dir, name) }
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, swap := range []func(string) error{
				func(n string) error { return os.Symlink(outside, n) },
				func(n string) error { return os.Symlink(filepath.Join(outside, "secret"), n) },
				func(n string) error { return unix.Mkfifo(n, 0o600) },
				func(n string) error { return os.Mkdir(n, 0o700) },
				func(n string) error { return os.WriteFile(n, []byte("own"), 0o600) },
			} {
				_ = swap(in("new"))
				_ = os.Rename(in("new"), in("x"))
				_ = os.RemoveAll(in("x"))
				_ = os.RemoveAll(in("new"))
			}
		}
	}()
	defer func() { close(stop); <-done }()
	deadline := time.Now().Add(2 * time.Second)
	for time.Now().Before(deadline) {
		for _, layer := range []bool{false, true} {
			data, err := packed(t, dir, Options{Layer: layer})
			must(t, err)
			if bytes.Contains(data, []byte("of the host")) {
				t.Fatal("the host's file was read")
			}
		}
	}
}
