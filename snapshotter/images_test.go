package snapshotter

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/snapshotter/erofs"
)

func openErofs(t *testing.T, root string) *Overlay {
	t.Helper()
	o, err := New(Config{Root: filepath.Join(root, "root"), Mounts: filepath.Join(root, "mounts")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// points counts mounted images.
func points(t *testing.T, o *Overlay) int {
	t.Helper()
	names, err := mountsBelow(o.images.dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestImagesAreMountedWhileNeeded: once for all, and not a moment longer, over
// restarts and reboots.
func TestImagesAreMountedWhileNeeded(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	ctx, dir := context.Background(), t.TempDir()
	o := openErofs(t, dir)
	top := chain(t, o, 3)
	if n := points(t, o); n != 0 {
		t.Errorf("%d images are mounted before anybody needs them", n)
	}
	m, err := o.Prepare(ctx, "c1", top)
	if err != nil {
		t.Fatal(err)
	}
	target := mounted(t, m)
	if err := os.WriteFile(filepath.Join(target, "l1"), []byte("changed"), 0o644); err != nil {
		t.Error(err)
	}
	if _, err := o.View(ctx, "v", "l0"); err != nil {
		t.Fatal(err)
	}
	if n := points(t, o); n != 3 {
		t.Errorf("%d images are mounted for two snapshots", n)
	}
	// The agent ends, and another begins.
	o.Close()
	o = openErofs(t, dir)
	if n := points(t, o); n != 3 {
		t.Errorf("%d images are mounted after a restart", n)
	}
	if err := o.Remove(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	if n := points(t, o); n != 1 {
		t.Errorf("%d images are mounted for a view of one", n)
	}
	// The machine ends, and begins again.
	o.Close()
	if err := unmountAll(o.images.dir); err != nil {
		t.Fatal(err)
	}
	o = openErofs(t, dir)
	if m, err = o.Mounts(ctx, "v"); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(mounted(t, m), "l0")); err != nil || string(data) != "l0" {
		t.Errorf("%q, %v", data, err)
	}
	if err := o.Remove(ctx, "v"); err != nil {
		t.Fatal(err)
	}
	if n := points(t, o); n != 0 {
		t.Errorf("%d images stay mounted", n)
	}
	if err := o.Remove(ctx, top); err != nil {
		t.Error(err)
	}
}

func TestHeldImageStays(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	ctx := context.Background()
	o := openErofs(t, t.TempDir())
	top := chain(t, o, 1)
	dir, release, err := o.HoldLayer(top)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.View(ctx, "v", top); err != nil {
		t.Fatal(err)
	}
	if err := o.Remove(ctx, "v"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "l0")); err != nil {
		t.Error(err)
	}
	release()
	if n := points(t, o); n != 0 {
		t.Errorf("%d images stay mounted", n)
	}
}

// TestImageThroughLoop: older kernels mount no files.
func TestImageThroughLoop(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	o := openErofs(t, t.TempDir())
	chain(t, o, 1)
	target := t.TempDir()
	if err := erofs.MountLoop(o.imageFile(1), target); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(target, "l0")); err != nil || string(data) != "l0" {
		t.Errorf("%q, %v", data, err)
	}
	if err := unix.Unmount(target, 0); err != nil {
		t.Error(err)
	}
	testenv.Eventually(t, 10*time.Second, "the loop device is free again", func() error {
		backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
		for _, file := range backing {
			if data, err := os.ReadFile(file); err == nil && strings.Contains(string(data), o.imageFile(1)) {
				return errdefs.ErrFailedPrecondition
			}
		}
		return nil
	})
}

// TestImageInheritsRoot: a layer without an entry for its root looks there as
// the one below does.
func TestImageInheritsRoot(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	ctx := context.Background()
	for name, o := range map[string]*Overlay{"directories": open(t, t.TempDir()), "images": openErofs(t, t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			if _, err := o.Prepare(ctx, "a", ""); err != nil {
				t.Fatal(err)
			}
			dir, _, err := o.HoldLayer("a")
			if err != nil {
				t.Fatal(err)
			}
			if err := dirAttr.set(dirAttr{UID: 7, GID: 70000, Mode: 0o1777}, dir); err != nil {
				t.Fatal(err)
			}
			if err := o.Commit(ctx, "low", "a"); err != nil {
				t.Fatal(err)
			}
			if _, err := o.Prepare(ctx, "b", ""); err != nil {
				t.Fatal(err)
			}
			labels := snapshots.WithLabels(map[string]string{LabelRoot: "parent"})
			if err := o.Commit(ctx, "high", "b", snapshots.WithParent("low"), labels); err != nil {
				t.Fatal(err)
			}
			m, err := o.View(ctx, "v", "high")
			if err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Stat(mounted(t, m), &st); err != nil {
				t.Fatal(err)
			}
			if st.Uid != 7 || st.Gid != 70000 || st.Mode&0o7777 != 0o1777 {
				t.Errorf("the root is %o of %d:%d", st.Mode, st.Uid, st.Gid)
			}
			if info, err := o.Stat(ctx, "high"); err != nil || info.Labels[LabelRoot] != "" {
				t.Errorf("labels %v, %v", info.Labels, err)
			}
			if err := o.Remove(ctx, "v"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFiveHundredImages is as many layers as Linux takes.
func TestFiveHundredImages(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	ctx := context.Background()
	const layers = 500
	for name, o := range map[string]*Overlay{"directories": open(t, t.TempDir()), "images": openErofs(t, t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			top := ""
			for i := range layers {
				name := "l" + strings.Repeat("x", i)
				key := "a" + name
				if _, err := o.Prepare(ctx, key, ""); err != nil {
					t.Fatal(err)
				}
				labels := snapshots.WithLabels(map[string]string{LabelSync: "caller"})
				if err := o.Commit(ctx, name, key, snapshots.WithParent(top), labels); err != nil {
					t.Fatal(err)
				}
				top = name
			}
			var m []mount.Mount
			m, err := o.Prepare(ctx, "c", top)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(mounted(t, m), "f"), nil, 0o644); err != nil {
				t.Error(err)
			}
			if err := o.Remove(ctx, "c"); err != nil {
				t.Error(err)
			}
		})
	}
}
