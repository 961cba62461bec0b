package sandbox

import (
	"errors"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/nodeagent/nodeagent/internal/failpoint"
)

// personsPod runs a pod of nodectl and stops it, as a reboot does.
func personsPod(t *testing.T, m *Manager) string {
	t.Helper()
	req := podRequest("web")
	req.Owner, req.Config = OwnerNodectl, proto.CloneOf(req.Config)
	id, err := m.RunPod(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.StopPod(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestRevivePod(t *testing.T) {
	w, m := start(t)
	id := personsPod(t, m)
	for range 2 {
		if err := m.RevivePod(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := m.Pod(id); err != nil || p.State != PodReady || p.Network == nil || p.NetNS == "" || p.PID != 99 {
		t.Errorf("revived: %+v %v", p, err)
	}
	if err := m.RemovePod(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	clean(t, w, m)
	if err := m.RevivePod(t.Context(), id); !errdefs.IsNotFound(err) {
		t.Errorf("a removed one: %v", err)
	}
	kubelets, err := m.RunPod(t.Context(), podRequest("kubelet"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.StopPod(t.Context(), kubelets); err != nil {
		t.Fatal(err)
	}
	if err := m.RevivePod(t.Context(), kubelets); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("kubelet's: %v", err)
	}
}

// Every step fails once; what was made is given back, and the same call
// succeeds later.
func TestRevivePodStepFails(t *testing.T) {
	for _, step := range []string{"intent", "directory", "namespaces", "network", "files", "record"} {
		for _, when := range []string{"before", "after"} {
			t.Run(step+" "+when, func(t *testing.T) {
				w, m := start(t)
				id := personsPod(t, m)
				disable, err := failpoint.Enable("revive." + step + "." + when + "=error:1")
				if err != nil {
					t.Fatal(err)
				}
				defer disable()
				if err := m.RevivePod(t.Context(), id); !errors.Is(err, failpoint.ErrInjected) {
					t.Fatalf("error %v", err)
				}
				until(t, "it is revived, or stopped again", func() bool {
					p, err := m.Pod(id)
					return err == nil && p.State != PodStopping
				})
				if err := m.RevivePod(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				if err := m.RemovePod(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				clean(t, w, m)
			})
		}
	}
}

// until waits for something that must happen.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}
