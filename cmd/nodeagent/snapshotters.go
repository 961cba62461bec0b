package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/nodeagent/nodeagent/snapshotter"
)

// The snapshotters that are built in.
const (
	overlayName = "overlay"
	erofsName   = "erofs"
)

// validateSnapshotters refuses names that nothing has, and proxies that cannot
// be reached.
func (c *Config) validateSnapshotters() error {
	known := []string{overlayName, erofsName}
	for _, name := range slices.Sorted(maps.Keys(c.ProxySnapshotters)) {
		path := strings.TrimPrefix(c.ProxySnapshotters[name], "unix://")
		switch {
		case !handlerName.MatchString(name) || slices.Contains(known, name):
			return fmt.Errorf("proxy_snapshotters: %q is no name for one", name)
		case !filepath.IsAbs(path):
			return fmt.Errorf("proxy_snapshotters.%s: %q is not the path of a socket", name, c.ProxySnapshotters[name])
		}
		known = append(known, name)
	}
	if !slices.Contains(known, c.Snapshotter) {
		return fmt.Errorf("snapshotter: %q is not known; known: %s", c.Snapshotter, strings.Join(known, ", "))
	}
	for name, handler := range c.Handlers {
		if handler.Snapshotter != "" && !slices.Contains(known, handler.Snapshotter) {
			return fmt.Errorf("handlers.%s.snapshotter: %q is not known; known: %s", name, handler.Snapshotter, strings.Join(known, ", "))
		}
	}
	return nil
}

// handlerSnapshotter is the member of the set that a runtime handler's images
// go to; empty is the usual one.
func (c *Config) handlerSnapshotter(handler string) string {
	name := c.Handlers[handler].Snapshotter
	if name == c.Snapshotter {
		return ""
	}
	return name
}

// wantsSnapshotter tells whether pods may use one.
func (c *Config) wantsSnapshotter(name string) bool {
	if c.Snapshotter == name {
		return true
	}
	for _, handler := range c.Handlers {
		if handler.Snapshotter == name {
			return true
		}
	}
	return false
}

// openSnapshotters opens those that are configured, and those that the last
// configuration has left layers in.
func (d *daemon) openSnapshotters() (map[string]snapshots.Snapshotter, error) {
	open := map[string]snapshots.Snapshotter{}
	for name, cfg := range map[string]snapshotter.Config{
		overlayName: {Root: filepath.Join(d.cfg.Root, "snapshots")},
		erofsName:   {Root: filepath.Join(d.cfg.Root, "snapshots-erofs"), Mounts: filepath.Join(d.cfg.State, "layers")},
	} {
		if !d.cfg.wantsSnapshotter(name) {
			if _, err := os.Stat(cfg.Root); errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		one, err := snapshotter.New(cfg)
		if err != nil {
			return nil, fmt.Errorf("snapshotter %s: %w", name, err)
		}
		d.onStop(func(context.Context) error { return one.Close() })
		open[name] = one
	}
	for name, address := range d.cfg.ProxySnapshotters {
		one, err := snapshotter.NewProxy(name, address)
		if err != nil {
			return nil, err
		}
		d.onStop(func(context.Context) error { return one.Close() })
		open[name] = one
	}
	return open, nil
}

func (d *daemon) buildSnapshotter(ctx context.Context) error {
	open, err := d.openSnapshotters()
	if err != nil {
		return err
	}
	d.layers = open[d.cfg.Snapshotter]
	delete(open, d.cfg.Snapshotter)
	d.otherLayers = open
	d.snapshots = snapshotter.NewSet(ctx, d.layers, open)
	return nil
}
