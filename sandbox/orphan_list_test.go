package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

// What belongs to a pod, or to one that is being made, is no orphan; the rest
// is, and is removed.
func TestOrphans(t *testing.T) {
	w := newWorld(t)
	m := w.manager(t.TempDir())
	if _, err := m.RunPod(t.Context(), podRequest("web")); err != nil {
		t.Fatal(err)
	}
	release := w.setBlock("Add")
	done := make(chan error, 1)
	go func() { _, err := m.RunPod(context.Background(), podRequest("slow")); done <- err }()
	eventually(t, "the network is added", func() bool { return w.count("Add") == 2 })

	pod, container := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	for _, dir := range []string{filepath.Join(w.state, "sandboxes", pod), filepath.Join(w.state, "containers", container)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.add("network", pod)
	w.add("snapshot", "lost")
	w.mu.Lock()
	w.labels["lost"] = map[string]string{labelContainer: container}
	w.mu.Unlock()

	found, err := m.Orphans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[OrphanKind]string{}
	for _, o := range found {
		kinds[o.Kind] = o.ID
	}
	if len(found) != 4 || kinds[OrphanPod] != pod || kinds[OrphanContainer] != container || kinds[OrphanSnapshot] != container || kinds[OrphanNetwork] != pod {
		t.Fatalf("found %v", found)
	}
	for _, o := range found {
		if err := m.RemoveOrphan(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
	if left, err := m.Orphans(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	release()
	if err := <-done; err != nil {
		t.Errorf("the pod that was being made: %v", err)
	}
}

// A slow operation says what it does and waits for, and all is recorded.
func TestOperationsAreTold(t *testing.T) {
	w := newWorld(t)
	m := w.manager(t.TempDir())
	r, err := recorder.Open(recorder.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	m.deps.Recorder, m.cfg.SlowAfter = r, time.Millisecond
	release := w.setBlock("Add")
	w.setFail("Add", errors.New("no address"))
	done := make(chan error, 1)
	ctx := recorder.WithCaller(context.Background(), "kubelet (PID 7)")
	go func() { _, err := m.RunPod(ctx, podRequest("web")); done <- err }()
	var ops []Operation
	eventually(t, "it waits for the network", func() bool {
		ops = m.Operations(true)
		return len(ops) == 1 && ops[0].Stage == "network" && len(ops[0].Waits) > 0
	})
	if op := ops[0]; op.Verb != "run pod" || op.PodID == "" || op.By != "kubelet (PID 7)" || !strings.Contains(strings.Join(op.Waits, " "), "addNetwork") {
		t.Errorf("%+v", op)
	}
	slow := func() (n int) {
		_ = r.Scan(t.Context(), "", func(e recorder.Entry) bool {
			if e.Kind == recorder.KindSlow && strings.Contains(e.Text, `"network"`) {
				n++
			}
			return true
		})
		return n
	}
	eventually(t, "it is told that it is slow", func() bool { return slow() > 0 })
	release()
	if err := <-done; err == nil {
		t.Fatal("no error")
	}
	entries, err := r.Of(t.Context(), 100, ops[0].PodID)
	if err != nil {
		t.Fatal(err)
	}
	last := entries[len(entries)-1]
	if entries[0].Kind != recorder.KindMade || last.Kind != recorder.KindOperation || !strings.Contains(last.Error, "no address") || last.By != "kubelet (PID 7)" {
		t.Errorf("%+v", entries)
	}
	var steps []string
	for _, s := range last.Steps {
		steps = append(steps, s.Name)
	}
	if got := strings.Join(steps, " "); got != "begin intent directory namespaces network undo" {
		t.Errorf("steps %s", got)
	}
}
