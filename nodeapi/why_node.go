package nodeapi

import (
	"context"
	"fmt"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/nodeapi/diagnosis"
)

// lately is how far back it is told what went wrong on the node.
const lately = time.Hour

// maxRemembered bounds the entries that are looked at for that.
const maxRemembered = 100_000

// whyNode tells what went wrong lately, of all pods and containers.
func (s *Server) whyNode(ctx context.Context) (*nodev1.WhyResponse, error) {
	var entries []recorder.Entry
	err := s.recorder.Scan(ctx, "", func(e recorder.Entry) bool {
		if len(entries) == maxRemembered {
			entries = append(entries[:0], entries[maxRemembered/2:]...)
		}
		e.Steps, e.Within = nil, nil
		entries = append(entries, e)
		return true
	})
	if err != nil {
		return nil, err
	}
	troubles := diagnosis.Troubles(entries, time.Now().Add(-lately), func(n recorder.Names) string { return subject{container: n.Container, names: n}.title() })
	resp := &nodev1.WhyResponse{Kind: "node", State: "Nothing went wrong with a pod or container in the last hour.", Dropped: s.recorder.Dropped()}
	if len(troubles) > 0 {
		resp.State = fmt.Sprintf("This went wrong in the last hour (%d in all):", len(troubles))
		resp.Hints = []string{"Ask for the whole story with: nodectl why NAME; for what the host lacks: nodectl doctor; for what hangs: nodectl ops"}
	}
	for _, t := range troubles {
		resp.Containers = append(resp.Containers, &nodev1.WhyContainer{Id: t.ID, Name: t.Name, State: diagnosis.Ago(time.Now(), t.At), Cause: t.Cause})
	}
	return resp, nil
}
