package snapshotter

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

// TestRestoreUnderneath restores a layer that something is mounted on: it goes
// on seeing the files it has.
func TestRestoreUnderneath(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	ctx := t.Context()
	o := open(t, t.TempDir())
	defer o.Close()
	layer(t, o, "A", "")
	mounts, err := o.Prepare(ctx, "container", "A")
	if err != nil {
		t.Fatal(err)
	}
	target := mounted(t, mounts)
	for range 2 {
		if _, err := o.Prepare(ctx, "again", "", snapshots.WithLabels(map[string]string{LabelLayer: "true"})); err != nil {
			t.Fatal(err)
		}
		dir, _, err := o.HoldLayer("again")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "A"), []byte("A"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := o.RestoreLayer(ctx, "A", "again"); err != nil {
			t.Fatal(err)
		}
		if err := o.Cleanup(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(target, "A")); string(data) != "A" {
		t.Errorf("the container sees %q, %v", data, err)
	}
}

// TestUnreadableRecord opens snapshots of which one cannot be read: nothing is
// known of it, so that it must stay.
func TestUnreadableRecord(t *testing.T) {
	testenv.Root(t)
	root := t.TempDir()
	o := open(t, root)
	layer(t, o, "A", "")
	o.Close()
	record := filepath.Join(root, "1", recordName)
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(record, 0o700); err != nil {
		t.Fatal(err)
	}
	o = open(t, root)
	if err := o.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "1", fsName, "A")); err != nil {
		t.Error(err)
	}
	layer(t, o, "B", "")
}
