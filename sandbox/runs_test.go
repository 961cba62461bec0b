package sandbox

import (
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/supervisor"
)

// kept makes a container that can be started again, and starts it.
func kept(t *testing.T, m *Manager) *container {
	t.Helper()
	req := containerRequest(readyPod(t, m), "c")
	req.Keep = true
	id, err := m.CreateContainer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.StartContainer(t.Context(), id, nil); err != nil {
		t.Fatal(err)
	}
	c, err := m.findContainer(id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The news of a run's end may come when the container runs again.
func TestEndOfEarlierRun(t *testing.T) {
	w, m := start(t)
	c := kept(t, m)
	first := c.get()
	fakeSupervisor{w}.end(first.ID, supervisor.Exit{Code: 3})
	if _, err := m.WaitContainer(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := m.StartContainer(t.Context(), first.ID, nil); err != nil {
		t.Fatal(err)
	}
	if err := m.runEnded(t.Context(), c, first, supervisor.Exit{Code: unknownCode, Reason: reasonLost}); err != nil {
		t.Fatal(err)
	}
	if s := c.get(); s.State != ContainerRunning {
		t.Errorf("the second run is %s, %s", s.State, s.Reason)
	}
}

// A stop that comes when the container has just ended must not be taken for
// one under way when the container runs again.
func TestStopAtTheEnd(t *testing.T) {
	w, m := start(t)
	c := kept(t, m)
	id := c.get().ID
	fakeSupervisor{w}.end(id, supervisor.Exit{})
	if _, err := m.WaitContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if stop := m.beginStop(c, 0, ""); stop != nil {
		<-stop.killed
	}
	if _, err := m.StartContainer(t.Context(), id, nil); err != nil {
		t.Fatal(err)
	}
	if c.get().State != ContainerRunning {
		t.Errorf("the second run is %s", c.get().State)
	}
	if err := m.StopContainer(t.Context(), id, time.Minute); err != nil {
		t.Fatal(err)
	}
	if c.get().State != ContainerExited {
		t.Errorf("stopped, and %s", c.get().State)
	}
}
