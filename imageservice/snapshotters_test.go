package imageservice

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/snapshotter"
)

// TestErofs runs what holds for layers in directories on images.
func TestErofs(t *testing.T) {
	testenv.Root(t)
	asErofs = true
	defer func() { asErofs = false }()
	for name, test := range map[string]func(*testing.T){
		"Pull": TestPull, "SharedLayers": TestSharedLayers, "ManyLayers": TestManyLayers, "RemoveInUse": TestRemoveInUse,
	} {
		t.Run(name, test)
	}
}

// TestOtherSnapshotter pulls one image into two snapshotters, from one
// transfer.
func TestOtherSnapshotter(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "x", "latest", newTestImage(asGzip, tarOf("a=1"), tarOf("a=2")))
	p := newProxy(t, reg.URL, nil)
	other, err := snapshotter.New(snapshotter.Config{Root: filepath.Join(t.TempDir(), "erofs"), Mounts: filepath.Join(t.TempDir(), "mounts")})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s := openStore(t, Config{DefaultName: "overlay", Others: map[string]snapshots.Snapshotter{"erofs": other}})
	ctx := t.Context()
	for _, name := range []string{"", "overlay", "erofs", "erofs"} {
		if _, err := s.Pull(ctx, PullRequest{Ref: p.host + "/x", Snapshotter: name}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if n := p.count("/blobs/"); n != 3 {
		t.Errorf("%d blobs were fetched", n)
	}
	if _, err := s.Pull(ctx, PullRequest{Ref: p.host + "/x", Snapshotter: "zfs"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown: %v", err)
	}
	list, err := s.Images(ctx)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	for name, in := range map[string]Layers{"overlay": s.snapshots, "erofs": other} {
		if _, err := in.View(ctx, "v", list[0].ChainID); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := in.Remove(ctx, "v"); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(s.Remove(ctx, list[0].ID), s.Collect(ctx)); err != nil {
		t.Fatal(err)
	}
	if u, err := s.FilesystemUsage(ctx); err != nil || u.Bytes != 0 {
		t.Errorf("%+v, %v", u, err)
	}
}
