package snapshotter

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

func open(t *testing.T, root string) *Overlay {
	t.Helper()
	o, err := New(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// layer commits a snapshot holding one file of the snapshot's name.
func layer(t *testing.T, o *Overlay, name, parent string) {
	t.Helper()
	ctx := context.Background()
	if _, err := o.Prepare(ctx, "making-"+name, ""); err != nil {
		t.Fatal(err)
	}
	dir, _, err := o.HoldLayer("making-" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := o.Commit(ctx, name, "making-"+name, snapshots.WithParent(parent)); err != nil {
		t.Fatal(err)
	}
}

func mounted(t *testing.T, m []mount.Mount) string {
	t.Helper()
	target := t.TempDir()
	if err := Mount(context.Background(), m, target); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Unmount(target); err != nil {
			t.Error(err)
		}
	})
	return target
}

// chain commits layers l0 to l(n-1), each on the one before.
func chain(t *testing.T, o *Overlay, n int) (top string) {
	t.Helper()
	for i := range n {
		name := fmt.Sprintf("l%d", i)
		layer(t, o, name, top)
		top = name
	}
	return top
}

func TestManyLayers(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	o := open(t, t.TempDir())
	const layers = 200
	top := chain(t, o, layers)
	m, err := o.Prepare(context.Background(), "c", top)
	if err != nil {
		t.Fatal(err)
	}
	check := func(target string) {
		t.Helper()
		names, err := os.ReadDir(target)
		if err != nil {
			t.Fatal(err)
		}
		if len(names) != layers {
			t.Errorf("%d files are visible, want %d", len(names), layers)
		}
	}
	check(mounted(t, m))

	// The way of older kernels, which needs relative names.
	opts, err := parseOptions(m[0].Options)
	if err != nil {
		t.Fatal(err)
	}
	v, err := o.View(context.Background(), "v", top)
	if err != nil {
		t.Fatal(err)
	}
	if opts, err = parseOptions(v[0].Options); err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	if err := mountOverlayString(opts, target); err != nil {
		t.Fatal(err)
	}
	defer Unmount(target)
	check(target)
}

func TestVolatile(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	o := open(t, t.TempDir())
	layer(t, o, "l0", "")
	m, err := o.Prepare(context.Background(), "c", "l0", snapshots.WithLabels(map[string]string{LabelVolatile: "true"}))
	if err != nil {
		t.Fatal(err)
	}
	target := mounted(t, m)
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		if strings.Contains(line, target+" ") {
			if !strings.Contains(line, "volatile") {
				t.Errorf("not volatile: %s", line)
			}
			return
		}
	}
	t.Error("not in mountinfo")
}

func TestUnmountIsIdempotent(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	for _, target := range []string{dir, filepath.Join(dir, "absent")} {
		if err := Unmount(target); err != nil {
			t.Error(err)
		}
	}
}

func TestMountDoesNotFollowTarget(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	m := []mount.Mount{{Type: "bind", Source: t.TempDir(), Options: []string{"ro", "rbind"}}}
	if err := Mount(context.Background(), m, filepath.Join(dir, "link")); err == nil {
		Unmount(filepath.Join(dir, "link"))
		t.Error("mounted through a symbolic link")
	}
}

func TestReopen(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	ctx := context.Background()
	root := t.TempDir()
	o := open(t, root)
	layer(t, o, "l0", "")
	layer(t, o, "l1", "l0")
	if _, err := o.Prepare(ctx, "c", "l1", snapshots.WithLabels(map[string]string{"a": "b"})); err != nil {
		t.Fatal(err)
	}
	if err := o.Remove(ctx, "l0"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removing a parent: %v", err)
	}
	// What kills in the middle of Prepare leave: no record, a torn record.
	for name, record := range map[string]string{"77": "", "78": `00000000 {"version":1}`} {
		if err := os.MkdirAll(filepath.Join(root, name, "fs"), 0o755); err != nil {
			t.Fatal(err)
		}
		if record == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, name, "record"), []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o.Close()

	again := open(t, root)
	if err := again.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"77", "78", "trash/77", "trash/78"} {
		if _, err := os.Lstat(filepath.Join(root, name)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	for key, kind := range map[string]snapshots.Kind{
		"l0": snapshots.KindCommitted, "l1": snapshots.KindCommitted, "c": snapshots.KindActive,
	} {
		before, err := o.Stat(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		after, err := again.Stat(ctx, key)
		if err != nil || after.Kind != kind || after.Parent != before.Parent || !after.Created.Equal(before.Created) {
			t.Errorf("%s was %+v and is %+v, %v", key, before, after, err)
		}
	}
	m, err := again.Mounts(ctx, "c")
	if err != nil {
		t.Fatal(err)
	}
	target := mounted(t, m)
	for _, name := range []string{"l0", "l1"} {
		if _, err := os.Stat(filepath.Join(target, name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := again.Prepare(ctx, "d", "l1"); err != nil {
		t.Fatal(err)
	}
}

func TestCommitOntoLaterParent(t *testing.T) {
	ctx := context.Background()
	o := open(t, t.TempDir())
	for _, key := range []string{"a", "b"} {
		if _, err := o.Prepare(ctx, key, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Commit(ctx, "B", "b", snapshots.WithParent("A")); !errdefs.IsNotFound(err) {
		t.Errorf("commit on nothing: %v", err)
	}
	if err := o.Commit(ctx, "A", "a"); err != nil {
		t.Fatal(err)
	}
	usage := map[string]string{LabelBytes: "123", LabelInodes: "4", LabelSync: "caller", "kept": "yes"}
	if err := o.Commit(ctx, "B", "b", snapshots.WithParent("A"), snapshots.WithLabels(usage)); err != nil {
		t.Fatal(err)
	}
	info, err := o.Stat(ctx, "B")
	if err != nil || info.Parent != "A" || len(info.Labels) != 1 || info.Labels["kept"] != "yes" {
		t.Errorf("%+v, %v", info, err)
	}
	if u, err := o.Usage(ctx, "B"); err != nil || u.Size != 123 || u.Inodes != 4 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if err := o.Commit(ctx, "A", "B"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("commit of a committed one: %v", err)
	}
}

// TestParallel has many callers fight for a few names.
func TestParallel(t *testing.T) {
	ctx := context.Background()
	o := open(t, t.TempDir())
	layer(t, o, "base", "")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				key := fmt.Sprintf("c%d", (i+j)%3)
				if _, err := o.Prepare(ctx, key, "base"); err != nil && !errdefs.IsAlreadyExists(err) {
					t.Error(err)
				}
				if err := o.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := o.Remove(ctx, "base"); err != nil {
		t.Error(err)
	}
	if err := o.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(o.Root())
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestModesArePrivate(t *testing.T) {
	root := filepath.Join(t.TempDir(), "snapshots")
	o := open(t, root)
	layer(t, o, "l0", "")
	for path, want := range map[string]os.FileMode{
		root: 0o700, filepath.Join(root, "1"): 0o700, filepath.Join(root, "1", "fs"): 0o755, filepath.Join(root, "trash"): 0o700,
	} {
		fi, err := os.Stat(path)
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, fi.Mode().Perm(), err, want)
		}
	}
}

func FuzzRecord(f *testing.F) {
	s := &snapshot{info: snapshots.Info{Kind: snapshots.KindActive, Name: "x", Parent: "y"}}
	good, err := encode(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("00000000 {}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decode(data)
		if err != nil {
			return
		}
		again, err := encode(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(again); err != nil {
			t.Fatalf("%q became %q: %v", data, again, err)
		}
	})
}

// BenchmarkHotPath is what one container costs: prepare, mount, unmount,
// remove.
func BenchmarkHotPath(b *testing.B) {
	testenv.Root(b)
	ctx := context.Background()
	o, err := New(Config{Root: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer o.Close()
	for _, l := range []string{"a", "b"} {
		if _, err := o.Prepare(ctx, "making", ""); err != nil {
			b.Fatal(err)
		}
		parent := map[string]string{"b": "a"}[l]
		if err := o.Commit(ctx, l, "making", snapshots.WithParent(parent)); err != nil {
			b.Fatal(err)
		}
	}
	target := b.TempDir()
	labels := snapshots.WithLabels(map[string]string{LabelVolatile: "true"})
	for b.Loop() {
		m, err := o.Prepare(ctx, "c", "b", labels)
		if err != nil {
			b.Fatal(err)
		}
		if err := Mount(ctx, m, target); err != nil {
			b.Fatal(err)
		}
		if err := Unmount(target); err != nil {
			b.Fatal(err)
		}
		if err := o.Remove(ctx, "c"); err != nil {
			b.Fatal(err)
		}
	}
}
