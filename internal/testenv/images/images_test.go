package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestParseDepends(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil,
		"Depends: libc6 (>= 2.34), zlib1g (>= 1:1.1.4)": {"libc6", "zlib1g"},
		"Pre-Depends: libc6\nDepends: perl:any, a | b":  {"libc6", "perl", "a"},
	} {
		if got := parseDepends(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzParseDepends(f *testing.F) {
	f.Add("Depends: libc6 (>= 2.34), zlib1g (>= 1:1.1.4) | b")
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range parseDepends(text) {
			if name == "" || strings.ContainsAny(name, " |(:,\n") {
				t.Errorf("%q is not a name", name)
			}
		}
	})
}

func TestLikeliestFirst(t *testing.T) {
	got := likeliestFirst([]string{"perl", "libxml2", "libaprutil1", "libapr1", "zlib1g"}, "libapr-1.so.0")
	if len(got) != 4 || got[0] != "libaprutil1" && got[0] != "libapr1" {
		t.Errorf("%q", got)
	}
}

// A layer has parents before children, hard links after what they name, and is the same each time.
func TestTreeWrites(t *testing.T) {
	make := func() tree {
		made := tree{}
		made.text("usr/bin/z", "program")
		made[merged("bin/a")] = node{mode: 0o755, hardlink: "usr/bin/z"}
		made["bin"] = node{mode: 0o777, link: "usr/bin"}
		return made
	}
	var first, second bytes.Buffer
	if err := errors.Join(make().write(&first), make().write(&second)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two layers of the same tree differ")
	}
	plain, err := gzip.NewReader(&first)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for archive := tar.NewReader(plain); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	if want := []string{"bin", "usr/", "usr/bin/", "usr/bin/z", "usr/bin/a"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

// Every reference has a host and a tag, and none stands for two images.
func TestCatalogue(t *testing.T) {
	seen := map[string]bool{}
	for _, one := range catalogue() {
		for _, ref := range one.refs {
			host, rest, ok := strings.Cut(ref, "/")
			if !ok || !strings.Contains(host, ".") || !strings.Contains(rest, ":") || seen[ref] {
				t.Errorf("reference %s", ref)
			}
			seen[ref] = true
		}
		for _, layer := range one.layers {
			if trees[layer] == nil {
				t.Errorf("%s: no layer %s", one.refs[0], layer)
			}
		}
	}
}
