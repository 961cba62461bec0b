package sandbox

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/supervisor"
)

// All that can be done to a person's pod and its containers is done at once, by
// callers that give up; after that the pod can be removed, and nothing is left.
func TestAllAtOnce(t *testing.T) {
	w, m := start(t)
	for range 8 {
		eventually(t, "connected", func() bool { _, err := m.supervisor(); return err == nil })
		podID, ids := personsContainers(t, m)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for ctx.Err() == nil {
					call, cancel := context.WithTimeout(ctx, time.Duration(1+rand.IntN(20))*time.Millisecond)
					doAnything(call, w, m, podID, ids[rand.IntN(len(ids))])
					cancel()
				}
			})
		}
		callers.Wait()
		cancel()
		// On a busy machine the news of an end may be late once.
		eventually(t, "the pod is removed", func() bool { return m.RemovePod(t.Context(), podID) == nil })
		eventually(t, "nothing is left", func() bool { return len(w.left()) == 0 })
		clean(t, w, m)
	}
}

func personsContainers(t *testing.T, m *Manager) (podID string, ids []string) {
	t.Helper()
	req := podRequest("web")
	req.Owner = OwnerNodectl
	podID, err := m.RunPod(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		req := containerRequest(podID, name)
		req.Keep = true
		id, err := m.CreateContainer(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return podID, ids
}

// doAnything makes a call whose success depends on what others do.
func doAnything(ctx context.Context, w *world, m *Manager, podID, id string) {
	switch rand.IntN(14) {
	case 0, 1, 2, 3:
		_, _ = m.StartContainer(ctx, id, nil)
	case 4:
		_ = m.StopContainer(ctx, id, 0)
	case 5:
		_ = m.StopContainer(ctx, id, 5*time.Millisecond)
	case 6:
		_ = m.PauseContainer(ctx, id)
	case 7:
		_ = m.ResumeContainer(ctx, id)
	case 8:
		_ = m.UpdateContainer(ctx, id, &runtime.LinuxContainerResources{CpuShares: int64(2 + rand.IntN(900))})
	case 9:
		_ = m.StopPod(ctx, podID)
	case 10, 11:
		_ = m.RevivePod(ctx, podID)
	case 12:
		fakeSupervisor{w}.end(id, supervisor.Exit{Code: 1})
	case 13:
		switch rand.IntN(20) {
		case 0, 1:
			fakeSupervisor{w}.hangUp()
		case 2:
			_ = m.RemovePod(ctx, podID)
		}
	}
}
