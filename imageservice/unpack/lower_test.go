package unpack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestLowerLookup asks several times, and from several goroutines, for what is in a layer with more directories and
// names than are kept.
func TestLowerLookup(t *testing.T) {
	dir := t.TempDir()
	write := func(path string) {
		t.Helper()
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxKnownNames + 10 {
		write(fmt.Sprintf("many/%d", i))
	}
	for i := range maxKnownDirs + 10 {
		write(fmt.Sprintf("dirs/%d/file", i))
	}
	if err := os.Symlink("many", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLower(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cases := []struct {
		path        string
		found, last bool
	}{
		{"many", true, true}, {"many/0", true, true}, {fmt.Sprintf("many/%d", maxKnownNames+9), true, true},
		{"many/none", false, false}, {"many/0/below", false, true}, {"link", true, true}, {"link/0", false, true},
		{"dirs/0/none", false, false}, {"dirs/none/file", false, false}, {"none", false, false}, {"none/file", false, false},
	}
	for i := range maxKnownDirs + 10 {
		cases = append(cases, struct {
			path        string
			found, last bool
		}{fmt.Sprintf("dirs/%d/file", i), true, true})
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for _, c := range cases {
				f, last, err := l.lookup(strings.Split(c.path, "/"))
				if err != nil || (f != nil) != c.found || last != c.last {
					t.Errorf("%s: found %v, last %v, error %v", c.path, f != nil, last, err)
				}
				if f != nil {
					f.close()
				}
			}
		})
	}
	group.Wait()
	if len(l.known) > maxKnownDirs || l.names > maxKnownNames {
		t.Errorf("%d directories and %d names are kept", len(l.known), l.names)
	}
}

// TestLowerHides: what is opaque, or deleted, or below such a thing, ends the search, each time it is asked.
func TestLowerHides(t *testing.T) {
	root(t)
	i := newImage(t)
	i.must(fileEntry("a/x", "1"), fileEntry("b/x", "1"), fileEntry("b/sub/x", "1"), fileEntry("c/x", "1"))
	i.must(fileEntry("a/.wh.x", ""), fileEntry("b/.wh..wh..opq", ""), fileEntry("b/sub/y", ""), fileEntry(".wh.c", ""))
	b := below{get: i.below()}
	for range 2 {
		for path, want := range map[string]bool{
			"a": true, "a/x": false, "b": true, "b/x": false, "b/sub/x": false, "b/sub/y": true, "b/none": false, "c": false, "c/x": false,
		} {
			f, err := b.lookup(context.Background(), strings.Split(path, "/"))
			if err != nil || (f != nil) != want {
				t.Errorf("%s: found %v, error %v", path, f != nil, err)
			}
			if f != nil {
				f.close()
			}
		}
	}
}
