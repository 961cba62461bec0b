package container

import (
	"fmt"
	"io"
	"testing"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// A list of a hundred containers, as ps writes it.
func BenchmarkPs(b *testing.B) {
	var all []*nodev1.Container
	for i := range 100 {
		all = append(all, &nodev1.Container{
			Id: fmt.Sprintf("%064x", i), Name: fmt.Sprintf("name_%d", i), Image: "registry.k8s.io/e2e-test-images/busybox:1.29-2",
			Args: []string{"sleep", "1000"}, State: "running", CreatedAt: timestamppb.New(time.Now()), StartedAt: timestamppb.New(time.Now()),
			Ports: []*nodev1.Port{{ContainerPort: 80, Protocol: "tcp"}},
		})
	}
	for b.Loop() {
		list := format.List{Header: psHeader, Default: `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}`, Rows: Rows(all)}
		if err := list.Write(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
