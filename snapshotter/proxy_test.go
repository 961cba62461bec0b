package snapshotter

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// serve serves a snapshotter as a proxy plugin does, and returns its socket.
func serve(s snapshots.Snapshotter) (socket string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "proxy")
	if err != nil {
		return "", nil, err
	}
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return "", nil, err
	}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(s))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // it ends with Stop
	}()
	return socket, func() {
		server.Stop()
		<-done
		os.RemoveAll(dir)
	}, nil
}

// openProxy opens the proxy of an overlay served on a socket.
func openProxy(root string) (*Proxy, func() error, error) {
	o, err := New(Config{Root: root})
	if err != nil {
		return nil, nil, err
	}
	socket, stop, err := serve(o)
	if err != nil {
		return nil, nil, errors.Join(err, o.Close())
	}
	p, err := NewProxy("overlayfs", socket)
	return p, func() error {
		err := p.Close()
		stop()
		return errors.Join(err, o.Close())
	}, err
}

func TestProxySuite(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	inMemory(t)
	testsuite.SnapshotterSuite(t, "overlayfs", func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		return openProxy(root)
	})
}

// TestProxyIsGone: an error at once, and again an answer when it is back.
func TestProxyIsGone(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir := t.TempDir()
	p, err := NewProxy("lazy", filepath.Join(dir, "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Stat(t.Context(), "x"); !errdefs.IsUnavailable(err) {
		t.Errorf("stat: %v", err)
	}
	set := NewSet(t.Context(), open(t, filepath.Join(dir, "root")), map[string]snapshots.Snapshotter{"lazy": p})
	if _, err := set.Prepare(t.Context(), "c", "", snapshots.WithLabels(map[string]string{LabelSnapshotter: "lazy"})); !errdefs.IsUnavailable(err) {
		t.Errorf("prepare: %v", err)
	}
	if _, err := set.Prepare(t.Context(), "c", ""); err != nil {
		t.Errorf("prepare in the usual one: %v", err)
	}
}

// TestSet: a container's snapshot is found in whichever member has it, by the
// next agent too.
func TestSet(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	ctx, dir := t.Context(), t.TempDir()
	usual, erofs := open(t, filepath.Join(dir, "root")), openErofs(t, dir+"/e")
	p, stop, err := openProxy(filepath.Join(dir, "proxied"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	members := map[string]snapshots.Snapshotter{"erofs": erofs, "proxied": p}
	set := NewSet(ctx, usual, members)
	for _, member := range []string{"", "erofs", "proxied"} {
		if _, err := set.Prepare(ctx, "c"+member, "", snapshots.WithLabels(map[string]string{LabelSnapshotter: member, "a": "b"})); err != nil {
			t.Fatal(err)
		}
		if dirs, err := set.LayerDirs("c" + member); err != nil || len(dirs) != 1 {
			t.Errorf("%s: %q, %v", member, dirs, err)
		}
	}
	if info, err := erofs.Stat(ctx, "cerofs"); err != nil || len(info.Labels) != 1 {
		t.Errorf("%+v, %v", info, err)
	}
	set = NewSet(ctx, usual, members)
	seen := 0
	if err := set.Walk(ctx, func(context.Context, snapshots.Info) error { seen++; return nil }); err != nil || seen != 3 {
		t.Errorf("%d snapshots, %v", seen, err)
	}
	for _, member := range []string{"", "erofs", "proxied"} {
		key := "c" + member
		if _, err := set.Mounts(ctx, key); err != nil {
			t.Error(err)
		}
		if err := set.Remove(ctx, key); err != nil {
			t.Error(err)
		}
	}
	if _, err := set.Prepare(ctx, "x", "", snapshots.WithLabels(map[string]string{LabelSnapshotter: "zfs"})); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown: %v", err)
	}
}
