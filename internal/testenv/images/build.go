package images

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// recipe is this package's own source: when it changes, what was built from it is stale.
//
//go:embed *.go programs/*.c
var recipe embed.FS

// Build makes all images below dir, a folder kept between runs, and returns the path of the layout directory. A
// folder that holds the result of the same recipe is returned as it is, without the network. Concurrent calls, in
// other processes too, wait for each other.
func Build(ctx context.Context, dir string) (string, error) {
	key, err := Key()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create image cache: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	done := filepath.Join(dir, "layout-"+key)
	if _, err := os.Stat(done); err == nil {
		return done, nil
	}
	stage, err := os.MkdirTemp(dir, "stage-")
	if err != nil {
		return "", fmt.Errorf("create staging folder: %w", err)
	}
	defer os.RemoveAll(stage)
	if err := build(ctx, stage, dir); err != nil {
		return "", fmt.Errorf("build test images: %w", err)
	}
	if err := os.Chmod(stage, 0o755); err != nil {
		return "", err
	}
	return done, os.Rename(stage, done)
}

// Key identifies the recipe; it is part of the names of what is cached.
func Key() (string, error) {
	var names []string
	for _, pattern := range []string{".", "programs"} {
		entries, err := recipe.ReadDir(pattern)
		if err != nil {
			return "", err
		}
		for _, entry := range entries {
			if !entry.IsDir() {
				names = append(names, filepath.Join(pattern, entry.Name()))
			}
		}
	}
	sort.Strings(names)
	sum := sha256.New()
	for _, name := range names {
		content, err := recipe.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(content), content)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// lock takes an advisory lock on a file; the returned function gives it back.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func build(ctx context.Context, stage, dir string) error {
	pool := newDebPool(filepath.Join(dir, "packages"))
	l, err := newLayout(stage)
	if err != nil {
		return err
	}
	layers := map[string]layer{}
	for _, name := range sortedKeys(trees) {
		t := tree{}
		if err := trees[name](ctx, pool, t); err != nil {
			return fmt.Errorf("collect files of %s: %w", name, err)
		}
		if layers[name], err = l.layer(t); err != nil {
			return fmt.Errorf("write layer of %s: %w", name, err)
		}
	}
	for _, one := range catalogue() {
		stack := []layer{layers["busybox"]}
		for _, name := range one.layers {
			stack = append(stack, layers[name])
		}
		if one.text != "" {
			extra, err := l.layer(tree{"etc/image": node{mode: 0o644, content: []byte(one.text + "\n")}})
			if err != nil {
				return err
			}
			stack = append(stack, extra)
		}
		if err := l.image(one.config, stack, one.refs); err != nil {
			return err
		}
	}
	return l.close()
}

// image is one line of the catalogue: the layers on top of busybox, what it runs, and the names it has.
type image struct {
	layers []string
	text   string // content of a file that makes this image differ from its neighbours; empty for none
	config ocispec.ImageConfig
	refs   []string
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
