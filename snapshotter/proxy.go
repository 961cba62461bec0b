package snapshotter

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// proxyTimeout bounds a call of a proxy, and prepareTimeout one that may
	// look for a layer in a registry.
	proxyTimeout   = 10 * time.Second
	prepareTimeout = 2 * time.Minute
	// proxyNamespace is the one that the snapshotters made for containerd
	// know Kubernetes' images by.
	proxyNamespace = "k8s.io"
	// maxRedial bounds how long a proxy that came back is not asked.
	maxRedial = 2 * time.Second
)

// Proxy is a snapshotter that another program serves on a socket, by the
// protocol of containerd's proxy plugins. Its layers are made one on top of
// the other. Each call has a deadline; ErrUnavailable tells that nobody
// answers.
type Proxy struct {
	name string
	// hangUp closes the connection, once.
	hangUp func() error
	snapshots.Snapshotter
}

// NewProxy is the snapshotter of a socket, which need not be there yet. Close
// closes the connection.
func NewProxy(name, address string) (*Proxy, error) {
	conn, err := grpc.NewClient("unix://"+strings.TrimPrefix(address, "unix://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, MaxDelay: maxRedial}, MinConnectTimeout: time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("proxy snapshotter %s: %w", name, err)
	}
	return &Proxy{
		name: name, hangUp: sync.OnceValue(conn.Close),
		Snapshotter: proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), name),
	}, nil
}

// Close ends the connection; the program's own Close is its own. It may be
// called twice.
func (p *Proxy) Close() error { return p.hangUp() }

func (p *Proxy) bound(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(namespaces.WithNamespace(ctx, proxyNamespace), limit)
}

// told says whose error it is, and that a call without an answer got none.
func (p *Proxy) told(err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsDeadlineExceeded(err):
		return fmt.Errorf("proxy snapshotter %s does not answer: %w: %w", p.name, err, errdefs.ErrUnavailable)
	}
	return fmt.Errorf("proxy snapshotter %s: %w", p.name, err)
}

// Stat tells of one snapshot.
func (p *Proxy) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	ctx, cancel := p.bound(ctx, proxyTimeout)
	defer cancel()
	info, err := p.Snapshotter.Stat(ctx, key)
	return info, p.told(err)
}

// Update changes labels.
func (p *Proxy) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (snapshots.Info, error) {
	ctx, cancel := p.bound(ctx, proxyTimeout)
	defer cancel()
	info, err := p.Snapshotter.Update(ctx, info, fieldpaths...)
	return info, p.told(err)
}

// Usage is what a snapshot's own files take.
func (p *Proxy) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	ctx, cancel := p.bound(ctx, proxyTimeout)
	defer cancel()
	usage, err := p.Snapshotter.Usage(ctx, key)
	return usage, p.told(err)
}

// Mounts returns how a snapshot is mounted.
func (p *Proxy) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	ctx, cancel := p.bound(ctx, proxyTimeout)
	defer cancel()
	m, err := p.Snapshotter.Mounts(ctx, key)
	return m, p.told(err)
}

// Prepare makes a writable snapshot. With the label
// snapshots.LabelSnapshotRef, ErrAlreadyExists says that the program has the
// layer of that name itself.
func (p *Proxy) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	ctx, cancel := p.bound(ctx, prepareTimeout)
	defer cancel()
	m, err := p.Snapshotter.Prepare(ctx, key, parent, opts...)
	return m, p.told(err)
}

// View makes a read-only one.
func (p *Proxy) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	ctx, cancel := p.bound(ctx, prepareTimeout)
	defer cancel()
	m, err := p.Snapshotter.View(ctx, key, parent, opts...)
	return m, p.told(err)
}

// Commit makes an active snapshot a committed one.
func (p *Proxy) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	ctx, cancel := p.bound(ctx, prepareTimeout)
	defer cancel()
	return p.told(p.Snapshotter.Commit(ctx, name, key, opts...))
}

// Remove removes a snapshot.
func (p *Proxy) Remove(ctx context.Context, key string) error {
	ctx, cancel := p.bound(ctx, proxyTimeout)
	defer cancel()
	return p.told(p.Snapshotter.Remove(ctx, key))
}

// Walk calls fn for all snapshots.
func (p *Proxy) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	bound, cancel := p.bound(ctx, proxyTimeout)
	defer cancel()
	// What fn does is not part of the call.
	var infos []snapshots.Info
	err := p.Snapshotter.Walk(bound, func(_ context.Context, info snapshots.Info) error {
		infos = append(infos, info)
		return nil
	}, filters...)
	if err != nil {
		return p.told(err)
	}
	for _, info := range infos {
		if err := fn(ctx, info); err != nil {
			return err
		}
	}
	return nil
}

// Serial says that layers are made one on top of the other.
func (p *Proxy) Serial() bool { return true }

// Root is empty: only the program knows where its snapshots are.
func (p *Proxy) Root() string { return "" }

func (p *Proxy) cannot(what string) error {
	return fmt.Errorf("proxy snapshotter %s: %s: %w", p.name, what, errdefs.ErrNotImplemented)
}

// HoldLayer fails: a layer is seen by its mounts alone.
func (p *Proxy) HoldLayer(string) (dir string, release func(), err error) {
	return "", nil, p.cannot("directory of a layer")
}

// LayerFile is empty.
func (p *Proxy) LayerFile(string) (string, error) { return "", nil }

// SealLayer keeps nothing.
func (p *Proxy) SealLayer(string, []byte) error { return nil }

// LayerSums has none.
func (p *Proxy) LayerSums(name string) ([]byte, error) {
	return nil, fmt.Errorf("checksums of layer %s: %w", name, errdefs.ErrNotFound)
}

// CheckLayer asks whether the program has a layer.
func (p *Proxy) CheckLayer(name string) error {
	_, err := p.Stat(context.Background(), name)
	return err
}

// RestoreLayer fails: the program looks after its layers.
func (p *Proxy) RestoreLayer(context.Context, string, string) error {
	return p.cannot("repair of a layer")
}
