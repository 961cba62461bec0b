package imageservice

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/snapshotter"
)

// lazy is a snapshotter that has some layers before anybody transfers them, as
// stargz, SOCI and nydus do.
type lazy struct {
	*snapshotter.Overlay

	mu sync.Mutex
	// own are the digests of layers that it has, seen the labels that came.
	own  map[string]bool
	seen []map[string]string
}

func (l *lazy) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	var info snapshots.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return nil, err
		}
	}
	ref := info.Labels[snapshots.LabelSnapshotRef]
	l.mu.Lock()
	l.seen = append(l.seen, info.Labels)
	own := ref != "" && l.own[info.Labels[digestLabel]]
	l.mu.Unlock()
	m, err := l.Overlay.Prepare(ctx, key, parent, opts...)
	if err != nil || !own {
		return m, err
	}
	if err := l.Overlay.Commit(ctx, ref, key, opts...); err != nil {
		return nil, err
	}
	return nil, errdefs.ErrAlreadyExists
}

// TestProxySnapshotter pulls into a snapshotter that another program serves:
// what it has is not transferred, the rest is unpacked on top.
func TestProxySnapshotter(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1", "gone=1"), tarOf("b=1"), tarOf("c=1", ".wh.gone="))
	i.manifest.Layers[0].Annotations = map[string]string{"containerd.io/snapshot/nydus-blob": "true", "other": "x"}
	i.seal()
	push(t, reg.URL, "x", "latest", i)
	over, err := snapshotter.New(snapshotter.Config{Root: filepath.Join(t.TempDir(), "lazy")})
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	l := &lazy{Overlay: over, own: map[string]bool{i.manifest.Layers[1].Digest.String(): true}}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(l))
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() { server.Stop(); <-done }()
	member, err := snapshotter.NewProxy("lazy", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()

	p := newProxy(t, reg.URL, nil)
	cfg := Config{Others: map[string]snapshots.Snapshotter{"lazy": member}}
	s := openStore(t, cfg)
	pull := func() PullResult {
		t.Helper()
		res, err := s.Pull(t.Context(), PullRequest{Ref: p.host + "/x", Snapshotter: "lazy"})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	img := pull().Image
	if n := p.count("/blobs/" + i.manifest.Layers[1].Digest.String()); n != 0 {
		t.Errorf("a layer was transferred %d times that the snapshotter had", n)
	}
	first := l.seen[0]
	if first[refLabel] != p.host+"/x:latest" || first[digestLabel] != i.manifest.Layers[0].Digest.String() || first["other"] != "" ||
		first["containerd.io/snapshot/nydus-blob"] != "true" || first[manifestLabel] != img.Manifest || first[layersLabel] == "" {
		t.Errorf("labels %v", first)
	}
	m, err := member.View(t.Context(), "v", img.ChainID)
	if err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	if err := snapshotter.Mount(t.Context(), m, target); err != nil {
		t.Fatal(err)
	}
	files := readFiles(t, target)
	if err := snapshotter.Unmount(target); err != nil {
		t.Error(err)
	}
	// The layer in the middle is the snapshotter's, which has made it empty.
	if !mapsEqual(files, map[string]string{"a": "1", "c": "1"}) {
		t.Errorf("files %v", files)
	}
	if err := member.Remove(t.Context(), "v"); err != nil {
		t.Error(err)
	}
	if res := pull(); res.New {
		t.Error("pulled again")
	}
	if found := s.verify(t, false); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
	// The image stays over a restart, and goes with its layers.
	s.close()
	s = reopenStore(t, s.root, cfg)
	if err := s.Unpack(t.Context(), img.ID, "lazy"); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = over.Walk(t.Context(), func(_ context.Context, info snapshots.Info) error {
		t.Errorf("snapshot %s stays", info.Name)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
