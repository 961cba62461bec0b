package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/failpoint"
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

// What a failed start could not take back goes with the container.
func TestRemoveAfterHalfStart(t *testing.T) {
	w, m := start(t)
	id, err := m.CreateContainer(t.Context(), containerRequest(readyPod(t, m), "c"))
	if err != nil {
		t.Fatal(err)
	}
	disable, err := failpoint.Enable("start.supervisor.after=error:1")
	if err != nil {
		t.Fatal(err)
	}
	defer disable()
	w.setFail("Delete", errors.New("hangs"))
	if _, err := m.StartContainer(t.Context(), id, nil); err == nil {
		t.Fatal("it started")
	}
	w.setFail("Delete", nil)
	if err := m.RemoveContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if len(w.running) != 0 {
		t.Error("it runs")
	}
}

// Between create and start the target may have ended, and its process's number
// been given to another.
func TestTargetEndsBeforeStart(t *testing.T) {
	_, m := start(t)
	podID, target := running(t, m)
	req := containerRequest(podID, "debugger")
	req.Config.Linux = &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{
		NamespaceOptions: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_TARGET, TargetId: target},
	}}
	id, err := m.CreateContainer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.StopContainer(t.Context(), target, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.StartContainer(t.Context(), id, nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("start: %v", err)
	}
}

// A process may end, unheard, before it is recorded that it runs.
func TestExitMissedDuringStart(t *testing.T) {
	w, m := start(t)
	id, err := m.CreateContainer(t.Context(), containerRequest(readyPod(t, m), "c"))
	if err != nil {
		t.Fatal(err)
	}
	resume := filepath.Join(t.TempDir(), "resume")
	disable, err := failpoint.Enable("start.supervisor.after=wait:" + resume)
	if err != nil {
		t.Fatal(err)
	}
	defer disable()
	started := make(chan error, 1)
	go func() {
		_, err := m.StartContainer(t.Context(), id, nil)
		started <- err
	}()
	eventually(t, "the process runs", func() bool { _, err := os.Stat(failpoint.Reached(resume)); return err == nil })
	w.setFail("Connect", errors.New("none"))
	fakeSupervisor{w}.hangUp()
	eventually(t, "disconnected", func() bool { _, err := m.supervisor(); return err != nil })
	fakeSupervisor{w}.end(id, supervisor.Exit{Code: 3})
	before := w.count("List")
	w.setFail("Connect", nil)
	eventually(t, "missed exits were looked for", func() bool { return w.count("List") > before })
	if err := os.WriteFile(resume, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if c, err := m.WaitContainer(t.Context(), id); err != nil || c.ExitCode != 3 {
		t.Errorf("container %+v, %v", c, err)
	}
}
