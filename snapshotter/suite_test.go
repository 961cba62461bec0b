package snapshotter

import (
	"context"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

// TestSuite runs containerd's own tests of the interface. The name it gives is
// one the suite knows: overlayfs cannot rename a directory of a lower layer.
func TestSuite(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	testsuite.SnapshotterSuite(t, "overlayfs", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		o, err := New(Config{Root: root})
		if err != nil {
			return nil, nil, err
		}
		return o, o.Close, nil
	})
}
