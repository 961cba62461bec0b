package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/snapshotter"
)

var epoch = time.Unix(1_600_000_000, 0)

// The entries of test layers.

func dirEntry(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
}

func fileEntry(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Linkname: content}
}

func linkEntry(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

func symlinkEntry(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}
}

func whiteoutOf(name string) tar.Header {
	dir, base := split(name)
	return tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(dir+"/.wh."+base, "/")}
}

func opaqueOf(dir string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: dir + "/.wh..wh..opq"}
}

// pack makes a tar; the content of a file stands in its Linkname.
func pack(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if h.ModTime.IsZero() {
			h.ModTime = epoch
		}
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if _, err := io.WriteString(tw, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func reader(data []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(data)) }

// image unpacks layers as a pull does, and mounts them.
type image struct {
	t    testing.TB
	s    *snapshotter.Overlay
	dirs []string // the topmost first
	// lowers are the same, open for the layers above them, as in a pull.
	lowers []*Lower
	top    string
}

func newImage(t testing.TB) *image {
	t.Helper()
	s, err := snapshotter.New(snapshotter.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &image{t: t, s: s}
}

// apply unpacks one more layer.
func (i *image) apply(data []byte) error {
	i.t.Helper()
	ctx := context.Background()
	key := fmt.Sprintf("layer%d", len(i.dirs))
	if asImages {
		return i.applyImage(key, data)
	}
	if _, err := i.s.Prepare(ctx, "active-"+key, ""); err != nil {
		i.t.Fatal(err)
	}
	dir, _, err := i.s.HoldLayer("active-" + key)
	if err != nil {
		i.t.Fatal(err)
	}
	opts := Options{Dir: dir}
	opts.Lowers = i.below()
	res, err := Apply(ctx, reader(data), opts)
	if err != nil {
		return err
	}
	err = Verify(ctx, dir, res.Sums, func(path string, err error) error { return fmt.Errorf("%s: %w", path, err) }, nil)
	if err != nil {
		i.t.Errorf("verify: %v", err)
	}
	var parent []snapshots.Opt
	if i.top != "" {
		parent = append(parent, snapshots.WithParent(i.top))
	}
	if err := i.s.Commit(ctx, key, "active-"+key, parent...); err != nil {
		i.t.Fatal(err)
	}
	if usage, err := i.s.Usage(ctx, key); err != nil {
		i.t.Error(err)
	} else if res.Inodes >= 0 && (usage.Inodes != res.Inodes || usage.Size != res.Bytes) {
		i.t.Errorf("%s takes %+v, and was said to take %d bytes, %d inodes", key, usage, res.Bytes, res.Inodes)
	}
	i.add(dir)
	i.top = key
	return nil
}

// below gives the layers so far to another; nil when there are none.
func (i *image) below() func(context.Context) ([]*Lower, error) {
	lowers := slices.Clone(i.lowers)
	if len(lowers) == 0 {
		return nil
	}
	return func(context.Context) ([]*Lower, error) { return lowers, nil }
}

// add puts the directory of a layer on top.
func (i *image) add(dir string) {
	i.t.Helper()
	l, err := OpenLower(dir)
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(l.Close)
	i.dirs = append([]string{dir}, i.dirs...)
	i.lowers = append([]*Lower{l}, i.lowers...)
}

func (i *image) must(entries ...tar.Header) {
	i.t.Helper()
	if err := i.apply(pack(i.t, entries...)); err != nil {
		i.t.Fatal(err)
	}
}

// mount returns where all layers can be seen.
func (i *image) mount() string {
	i.t.Helper()
	m, err := i.mounts()
	if err != nil {
		i.t.Fatal(err)
	}
	target := i.t.TempDir()
	if err := snapshotter.Mount(context.Background(), m, target); err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() {
		if err := snapshotter.Unmount(target); err != nil {
			i.t.Error(err)
		}
	})
	return target
}

// list describes what is below a directory, one line for each name.
func list(t testing.TB, root string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == root {
			return nil
		}
		line, err := describe(root, path, d)
		lines = append(lines, line)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

func describe(root, path string, d fs.DirEntry) (string, error) {
	rel, _ := filepath.Rel(root, path)
	fi, err := d.Info()
	if err != nil {
		return "", err
	}
	switch {
	case d.IsDir():
		return fmt.Sprintf("%s/ %o", rel, fi.Mode().Perm()), nil
	case fi.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return fmt.Sprintf("%s -> %s", rel, target), err
	case fi.Mode().IsRegular():
		data, err := os.ReadFile(path)
		return fmt.Sprintf("%s = %s", rel, data), err
	}
	return fmt.Sprintf("%s %s %d", rel, fi.Mode(), fi.Sys().(*syscall.Stat_t).Rdev), nil
}

// want compares the mounted image with lines.
func (i *image) want(lines ...string) {
	i.t.Helper()
	slices.Sort(lines)
	if got := list(i.t, i.mount()); !slices.Equal(got, lines) {
		i.t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(lines, "\n\t"))
	}
}

// root skips without root.
func root(t testing.TB) { testenv.Root(t) }
