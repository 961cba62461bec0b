package snapshotter

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// What is unpacked leaves nothing to a later process before it is committed, and everything afterwards.
func TestLayerHasNoRecordBeforeItIsWhole(t *testing.T) {
	ctx, root := context.Background(), t.TempDir()
	o := open(t, root)
	unpacking := snapshots.WithLabels(map[string]string{LabelLayer: "true"})
	for _, key := range []string{"whole", "half"} {
		if _, err := o.Prepare(ctx, key, "", unpacking); err != nil {
			t.Fatal(err)
		}
		dir, _, err := o.HoldLayer(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, key), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := o.SealLayer(key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	layer(t, o, "base", "")
	if err := o.Commit(ctx, "layer", "whole", snapshots.WithParent("base")); err != nil {
		t.Fatal(err)
	}
	info, err := o.Stat(ctx, "layer")
	if err != nil || len(info.Labels) > 0 {
		t.Errorf("labels %v, %v", info.Labels, err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	o = open(t, root)
	if _, err := o.Stat(ctx, "half"); !errdefs.IsNotFound(err) {
		t.Errorf("what was half unpacked is there: %v", err)
	}
	if sums, err := o.LayerSums("layer"); err != nil || string(sums) != "whole" {
		t.Errorf("checksums %q, %v", sums, err)
	}
	if err := o.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(root, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		if name := filepath.Base(path); name == workName || strings.HasPrefix(path, filepath.Join(root, trashName)) {
			t.Errorf("%s is left", path)
		}
	}
	if len(left) != 5 { // files and record of two layers, checksums of one
		t.Errorf("there are %v", left)
	}
}

// An image needs no directory beside it while it is written.
func TestImageHasNoDirectory(t *testing.T) {
	testenv.Root(t)
	ctx, root := context.Background(), t.TempDir()
	o := openErofs(t, root)
	if _, err := o.Prepare(ctx, "key", "", snapshots.WithLabels(map[string]string{LabelLayer: "true"})); err != nil {
		t.Fatal(err)
	}
	file, err := o.LayerFile("key")
	if err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(filepath.Dir(file)); err != nil || len(names) > 0 {
		t.Errorf("there are %v, %v", names, err)
	}
	if _, err := o.Usage(ctx, "key"); err != nil {
		t.Error(err)
	}
	// Nobody wrote one.
	if err := o.Commit(ctx, "layer", "key"); err == nil {
		t.Error("no error")
	}
	if err := o.Remove(ctx, "key"); err != nil {
		t.Error(err)
	}
}
