// Package bigimages builds the images that pulls are measured with, from folders of this machine and a debootstrap, as
// an OCI layout that is kept between runs:
//
//	bench.test/a:1   four layers from /usr/local/go, /usr/share, /usr/lib and a debootstrap: 1.3 GB, 60,000 files
//	bench.test/b:1   120 tiny layers
//	bench.test/c:1   one layer of 200 MB, compressed
//
// What is in them differs a little from machine to machine; Sizes tells what it is.
package bigimages

import (
	"context"
	_ "crypto/sha256" // digests
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The references of the images.
const (
	A = "bench.test/a:1"
	B = "bench.test/b:1"
	C = "bench.test/c:1"
)

// version is part of the cache's name; it changes with the recipe.
const version = "5"

const (
	// suite is the distribution's release that is bootstrapped.
	suite = "bookworm"
	mb    = 1000 * 1000
	// tiny is how many layers B has.
	tiny = 120
)

// Cached returns the layout that Build left below dir, and whether there is one.
func Cached(dir string) (string, bool) {
	layout := filepath.Join(dir, "layout-"+version)
	_, err := os.Stat(layout)
	return layout, err == nil
}

// Build makes the layout below dir unless it is there. It needs root, debootstrap and the distribution's archive.
func Build(ctx context.Context, dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	done, ok := Cached(dir)
	if ok {
		return done, nil
	}
	stage, err := os.MkdirTemp(dir, "stage-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(stage)
	if err := build(ctx, stage); err != nil {
		return "", fmt.Errorf("build images to measure with: %w", err)
	}
	return done, os.Rename(filepath.Join(stage, "layout"), done)
}

func build(ctx context.Context, stage string) error {
	l, err := newLayout(filepath.Join(stage, "layout"))
	if err != nil {
		return err
	}
	root := filepath.Join(stage, "debootstrap")
	bootstrap := exec.CommandContext(ctx, "debootstrap", "--variant=minbase", suite, root)
	if out, err := bootstrap.CombinedOutput(); err != nil {
		return fmt.Errorf("debootstrap: %w: %s", err, out[max(0, len(out)-1000):])
	}
	for _, one := range []struct {
		ref    string
		layers []content
	}{
		{A, []content{
			{from: runtime.GOROOT(), as: "usr/local/go", bytes: 240 * mb, files: 15500},
			{from: "/usr/share", as: "usr/share", largest: mb / 8, files: 25000},
			{from: "/usr/lib", as: "usr/lib", largest: 52 * mb, files: 11500},
			{from: root, as: "", bytes: 400 * mb, files: 12000},
		}},
		{B, tinyLayers()},
		{C, []content{{from: "/usr/lib", as: "usr/lib", compressed: 200 * mb}}},
	} {
		if err := l.image(one.ref, one.layers); err != nil {
			return fmt.Errorf("image %s: %w", one.ref, err)
		}
	}
	return l.close()
}

func tinyLayers() []content {
	layers := make([]content, tiny)
	for i := range layers {
		layers[i] = content{text: map[string]string{
			fmt.Sprintf("etc/layer/%03d", i): fmt.Sprintf("layer %d\n", i),
			"etc/last":                       fmt.Sprintf("%d\n", i),
			fmt.Sprintf("opt/%03d/file", i):  fmt.Sprintf("%0512d\n", i),
		}}
	}
	return layers
}

// Sizes tells what an image of a layout is: its layers, and their compressed and plain bytes and entries.
func Sizes(layout, ref string) (Size, error) {
	text, err := os.ReadFile(filepath.Join(layout, ocispec.ImageIndexFile))
	if err != nil {
		return Size{}, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return Size{}, err
	}
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] != ref {
			continue
		}
		var s Size
		return s, json.Unmarshal([]byte(m.Annotations[sizeAnnotation]), &s)
	}
	return Size{}, fmt.Errorf("no image %s in %s", ref, layout)
}
