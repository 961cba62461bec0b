package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/supervisor"
)

// killAt stops an agent at a failpoint while call runs, and starts another on
// the world and records as they then are. The first one is then let go, on a
// world of its own.
func killAt(t *testing.T, point string, prepare func(m *Manager), call func(m *Manager) error) (*world, *Manager) {
	t.Helper()
	w := newWorld(t)
	root := t.TempDir()
	m := w.manager(root)
	if prepare != nil {
		prepare(m)
	}
	let := filepath.Join(t.TempDir(), "go")
	disable, err := failpoint.Enable(point + "=wait:" + let)
	if err != nil {
		t.Fatal(err)
	}
	defer disable()
	done := make(chan error, 1)
	go func() { done <- call(m) }()
	eventually(t, "at "+point, func() bool {
		_, err := os.Lstat(failpoint.Reached(let))
		return err == nil
	})
	// The operation stands still: everything it did so far is there.
	n, copied := w.clone(), t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(let, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the first agent: %v", err)
	}
	return n, n.manager(copied)
}

// Killed at any step of RunPod, the agent undoes the pod when it starts, and
// the same call succeeds.
func TestKilledInRunPod(t *testing.T) {
	for _, step := range []string{"directory", "namespaces", "network", "files", "record"} {
		t.Run(step, func(t *testing.T) {
			w, m := killAt(t, "run."+step+".before", nil, func(m *Manager) error {
				_, err := m.RunPod(context.Background(), podRequest("web"))
				return err
			})
			if len(m.Pods()) != 0 {
				t.Errorf("listed: %v", m.Pods())
			}
			clean(t, w, m)
			again(t, w, m)
		})
	}
}

// Killed after the record says so, the agent finds the pod.
func TestKilledBeforePublish(t *testing.T) {
	w, m := killAt(t, "run.publish.before", nil, func(m *Manager) error {
		_, err := m.RunPod(context.Background(), podRequest("web"))
		return err
	})
	pods := m.Pods()
	if len(pods) != 1 || pods[0].State != PodReady {
		t.Fatalf("pods %v", pods)
	}
	if id, err := m.RunPod(t.Context(), podRequest("web")); err != nil || id != pods[0].ID {
		t.Errorf("the same call gives %q, %v", id, err)
	}
	if !slices.Equal(w.kept, []string{pods[0].ID}) {
		t.Errorf("the network was told to keep %v", w.kept)
	}
}

func TestKilledInCreateContainer(t *testing.T) {
	for _, step := range []string{"directory", "snapshot", "rootfs", "mounts", "user", "record"} {
		t.Run(step, func(t *testing.T) {
			var podID string
			w, m := killAt(t, "create."+step+".before", func(m *Manager) { podID = readyPod(t, m) },
				func(m *Manager) error {
					_, err := m.CreateContainer(context.Background(), fullRequest(podID))
					return err
				})
			if len(m.Containers()) != 0 {
				t.Errorf("listed: %v", m.Containers())
			}
			for _, thing := range w.left() {
				if strings.HasPrefix(thing, "snapshot") || strings.HasPrefix(thing, "mount") || strings.Contains(thing, "containers/") {
					t.Errorf("left behind: %s", thing)
				}
			}
			if _, err := m.CreateContainer(t.Context(), fullRequest(podID)); err != nil {
				t.Errorf("second time: %v", err)
			}
		})
	}
}

// Killed between the start of the process and the record, the agent finds the
// container running.
func TestKilledInStartContainer(t *testing.T) {
	for point, want := range map[string]ContainerState{
		"start.supervisor.before": ContainerCreated, "start.record.before": ContainerRunning,
	} {
		var id string
		_, m := killAt(t, point, func(m *Manager) {
			var err error
			if id, err = m.CreateContainer(t.Context(), containerRequest(readyPod(t, m), "c")); err != nil {
				t.Fatal(err)
			}
		}, func(m *Manager) error {
			_, err := m.StartContainer(context.Background(), id, nil)
			return err
		})
		c, err := m.Container(id)
		if err != nil || c.State != want {
			t.Errorf("%s: %+v, %v", point, c, err)
		}
		if want == ContainerRunning && (c.PID != 4242 || c.StartedAt.IsZero()) {
			t.Errorf("%s: %+v", point, c)
		}
		if want == ContainerCreated {
			if _, err := m.StartContainer(t.Context(), id, nil); err != nil {
				t.Errorf("%s: %v", point, err)
			}
		}
		if err := m.StopContainer(t.Context(), id, 0); err != nil {
			t.Error(err)
		}
	}
}

// A stop that was begun is finished by the next agent.
func TestKilledInStopPod(t *testing.T) {
	for _, step := range []string{"containers", "init", "network", "namespaces", "cgroup", "record"} {
		t.Run(step, func(t *testing.T) {
			var podID string
			w, m := killAt(t, "stop."+step+".before", func(m *Manager) { podID, _ = running(t, m) },
				func(m *Manager) error { return m.StopPod(context.Background(), podID) })
			eventually(t, "stopped", func() bool { p, _ := m.Pod(podID); return p.State == PodNotReady })
			if err := m.RemovePod(t.Context(), podID); err != nil {
				t.Fatal(err)
			}
			clean(t, w, m)
		})
	}
}

func TestKilledInRemove(t *testing.T) {
	for _, point := range []string{
		"remove.mounts.before", "remove.directory.before", "remove.snapshot.before", "remove.record.before",
		"remove pod.directory.before", "remove pod.record.before",
	} {
		t.Run(point, func(t *testing.T) {
			var podID string
			w, m := killAt(t, point, func(m *Manager) { podID, _ = running(t, m) },
				func(m *Manager) error { return m.RemovePod(context.Background(), podID) })
			if err := m.RemovePod(t.Context(), podID); err != nil {
				t.Fatal(err)
			}
			clean(t, w, m)
		})
	}
}

// restart ends an agent and starts another; between does what happens while
// there is none.
func restart(t *testing.T, between func(w *world, root, podID, id string)) (*world, *Manager, string, string) {
	t.Helper()
	w := newWorld(t)
	root := t.TempDir()
	m := w.manager(root)
	podID, id := running(t, m)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	between(w, root, podID, id)
	return w, w.manager(root), podID, id
}

func TestRestart(t *testing.T) {
	w, m, podID, id := restart(t, func(*world, string, string, string) {})
	if p, err := m.Pod(podID); err != nil || p.State != PodReady || p.Network == nil || p.Config.Hostname != "web" {
		t.Errorf("pod %+v, %v", p, err)
	}
	c, err := m.Container(id)
	if err != nil || c.State != ContainerRunning || c.PID != 4242 || c.Config.Metadata.Name != "c" || c.User.Linux == nil {
		t.Errorf("container %+v, %v", c, err)
	}
	if res, err := m.ExecSync(t.Context(), id, []string{"echo", "x"}, 0); err != nil || string(res.Stdout) != "x\n" {
		t.Errorf("exec: %+v, %v", res, err)
	}
	if err := m.RemovePod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	clean(t, w, m)
}

func TestExitWhileDown(t *testing.T) {
	_, m, _, id := restart(t, func(w *world, _, _, id string) {
		fakeSupervisor{w}.hangUp()
		fakeSupervisor{w}.end(id, supervisor.Exit{Code: 7})
	})
	if c, _ := m.Container(id); c.State != ContainerExited || c.ExitCode != 7 || c.Reason != "Error" {
		t.Errorf("container %+v", c)
	}
}

func TestSupervisorForgot(t *testing.T) {
	_, m, _, id := restart(t, func(w *world, _, _, id string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.running, id)
	})
	if c, _ := m.Container(id); c.State != ContainerExited || c.ExitCode != 255 || c.Reason != "SupervisorLost" {
		t.Errorf("container %+v", c)
	}
}

// rewrite changes all records as text would be changed.
func rewriteBoot(t *testing.T, m *Manager, podID, id string) {
	t.Helper()
	p, err := m.getPod(podID)
	if err != nil {
		t.Fatal(err)
	}
	p.BootID = "another"
	c, err := m.getContainer(id)
	if err != nil {
		t.Fatal(err)
	}
	c.BootID = "another"
	if err := errors.Join(m.putPod(p), m.putContainer(c)); err != nil {
		t.Fatal(err)
	}
}

func TestReboot(t *testing.T) {
	w := newWorld(t)
	root := t.TempDir()
	first := w.manager(root)
	podID, id := running(t, first)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	rewriteBoot(t, first, podID, id)
	// Only what is on disk outlasts a reboot.
	for thing := range w.things {
		if !strings.HasPrefix(thing, "snapshot") && !strings.HasPrefix(thing, "network") {
			delete(w.things, thing)
		}
	}
	clear(w.running)
	for _, dir := range first.stateDirs() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	m := w.manager(root)
	eventually(t, "stopped", func() bool { p, _ := m.Pod(podID); return p.State == PodNotReady })
	if c, _ := m.Container(id); c.State != ContainerExited || c.ExitCode != 255 || c.Reason != "Unknown" {
		t.Errorf("container %+v", c)
	}
	if w.has("network", podID) {
		t.Error("the network was not given back")
	}
	if err := m.RemovePod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	clean(t, w, m)
}

func TestCorruptRecords(t *testing.T) {
	for _, damage := range []func(string) error{
		func(path string) error { return os.Truncate(path, 0) },
		func(path string) error { return os.Truncate(path, 50) },
		func(path string) error { return os.WriteFile(path, []byte("{}"), 0o600) },
	} {
		w, m, _, _ := restart(t, func(_ *world, root, podID, id string) {
			if err := damage(filepath.Join(root, "pods", podID+".json")); err != nil {
				t.Fatal(err)
			}
		})
		if len(m.Pods()) != 0 || len(m.Containers()) != 0 {
			t.Errorf("listed: %v %v", m.Pods(), m.Containers())
		}
		// All is gone but what the network was told not to keep.
		for _, thing := range w.left() {
			if !strings.HasPrefix(thing, "network") {
				t.Errorf("left behind: %s", thing)
			}
		}
		if len(w.kept) != 0 {
			t.Errorf("kept %v", w.kept)
		}
		aside := 0
		_ = filepath.WalkDir(m.cfg.Root, func(path string, _ fs.DirEntry, _ error) error {
			if strings.Contains(path, ".corrupt-") {
				aside++
			}
			return nil
		})
		if aside != 1 {
			t.Errorf("%d records set aside", aside)
		}
		again(t, newWorldOf(w), m)
	}
}

// newWorldOf forgets what a lost record leaves to others to find.
func newWorldOf(w *world) *world {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.things)
	return w
}

// Without a supervisor the agent starts and lists; calls that need one fail,
// and work once it is there.
func TestNoSupervisorAtStart(t *testing.T) {
	w, m, podID, id := restart(t, func(w *world, _, _, _ string) { w.setFail("Connect", errors.New("none")) })
	if c, err := m.Container(id); err != nil || c.State != ContainerRunning {
		t.Errorf("container %v, %v", c.State, err)
	}
	if err := m.StopContainer(t.Context(), id, 0); !errdefs.IsUnavailable(err) {
		t.Errorf("stop: %v", err)
	}
	fakeSupervisor{w}.hangUp()
	fakeSupervisor{w}.end(id, supervisor.Exit{Code: 9})
	w.setFail("Connect", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if c, err := m.WaitContainer(ctx, id); err != nil || c.ExitCode != 9 {
		t.Errorf("container %+v, %v", c, err)
	}
	if err := m.RemovePod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	clean(t, w, m)
}

// A lost connection is made again, and what ended meanwhile is found, though not
// at once.
func TestSupervisorHangsUp(t *testing.T) {
	w, m := start(t)
	_, id := running(t, m)
	w.setFail("Connect", errors.New("none"))
	fakeSupervisor{w}.hangUp()
	eventually(t, "disconnected", func() bool { _, err := m.supervisor(); return errdefs.IsUnavailable(err) })
	fakeSupervisor{w}.end(id, supervisor.Exit{Code: 3})
	w.setFail("List", errors.New("too much to do"))
	before := w.count("List")
	w.setFail("Connect", nil)
	eventually(t, "connected", func() bool { return w.count("List") > before })
	w.setFail("List", nil)
	if c, err := m.WaitContainer(t.Context(), id); err != nil || c.ExitCode != 3 {
		t.Errorf("container %+v, %v", c, err)
	}
}
