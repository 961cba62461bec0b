package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/sandbox/checkpoint"
	"github.com/nodeagent/nodeagent/supervisor"
)

// pause sets the status of a container of the fake supervisor.
func (f fakeSupervisor) pause(ctx context.Context, name, id string, status supervisor.Status) error {
	if err := f.call(ctx, name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.running[id]
	switch {
	case s == nil:
		return errdefs.ErrNotFound
	case s.Status == supervisor.StatusStopped:
		return errdefs.ErrFailedPrecondition
	}
	s.Status = status
	return nil
}

func (f fakeSupervisor) Pause(ctx context.Context, id string) error {
	return f.pause(ctx, "Pause", id, supervisor.StatusPaused)
}

func (f fakeSupervisor) Resume(ctx context.Context, id string) error {
	return f.pause(ctx, "Resume", id, supervisor.StatusRunning)
}

func (f fakeSupervisor) CheckCRIU(ctx context.Context) error { return f.call(ctx, "CheckCRIU") }

var errNotFrozen = errors.New("a container runs while one is dumped")

// errPanic makes the fake's Checkpoint panic.
var errPanic = errors.New("panic")

// Checkpoint fails unless every container is frozen.
func (f fakeSupervisor) Checkpoint(ctx context.Context, id, images string) error {
	for other, status := range f.statuses() {
		if status == supervisor.StatusRunning {
			return fmt.Errorf("%w: %s", errNotFrozen, other)
		}
	}
	if err := os.WriteFile(filepath.Join(images, "pstree.img"), []byte(id), 0o600); err != nil {
		return err
	}
	err := f.call(ctx, "Checkpoint")
	if errors.Is(err, errPanic) {
		panic(err)
	}
	return err
}

func (w *world) statuses() map[string]supervisor.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]supervisor.Status{}
	for id, s := range w.running {
		all[id] = s.Status
	}
	return all
}

// onCall calls fn soon after the first call of this name began.
func (w *world) onCall(name string, fn func()) {
	ctx := w.t.Context()
	go func() {
		defer fn()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for w.count(name) == 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
}

// several makes a pod with three containers that run.
func several(t *testing.T, m *Manager) (podID string, ids []string) {
	t.Helper()
	podID = readyPod(t, m)
	for _, name := range []string{"a", "b", "c"} {
		id, err := m.CreateContainer(t.Context(), containerRequest(podID, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.StartContainer(t.Context(), id, nil); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return podID, ids
}

// thawed fails the test unless every container runs, for all to see.
func thawed(t *testing.T, w *world, m *Manager) {
	t.Helper()
	for id, status := range w.statuses() {
		if status != supervisor.StatusRunning {
			t.Errorf("container %s is %s", id, status)
		}
	}
	for _, c := range m.Containers() {
		if c.State != ContainerRunning {
			t.Errorf("container %s is listed %s", c.ID, c.State)
		}
		if s, err := m.getContainer(c.ID); err != nil || s.Frozen || s.State != ContainerRunning {
			t.Errorf("record of container %s: %+v, %v", c.ID, s, err)
		}
	}
}

// empty fails the test when a folder holds anything.
func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func readArchive(t *testing.T, path string) *checkpoint.Archive {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := checkpoint.Read(t.Context(), f, t.TempDir(), checkpoint.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestCheckpointPod(t *testing.T) {
	w, m := start(t)
	podID, ids := several(t, m)
	out := t.TempDir()
	if err := m.CheckpointPod(t.Context(), podID[:12], out, []string{ids[2], ids[0], ids[1]}); err != nil {
		t.Fatal(err)
	}
	thawed(t, w, m)
	data, err := os.ReadFile(filepath.Join(out, podCheckpointName))
	if err != nil {
		t.Fatal(err)
	}
	var told podCheckpoint
	if err := json.Unmarshal(data, &told); err != nil {
		t.Fatal(err)
	}
	if told.ID != podID || told.Name != "web" || told.UID != "u-web" || len(told.Containers) != 3 {
		t.Errorf("it tells %+v", told)
	}
	for i, want := range []string{"c", "a", "b"} {
		got := readArchive(t, filepath.Join(out, told.Containers[i].Archive))
		if got.Config.Name != want || told.Containers[i].Name != want || got.Config.ImageID != "sha256:1" {
			t.Errorf("archive %d is of %+v", i, got.Config)
		}
		if len(got.Spec.Process.Args) == 0 || !got.Config.CheckpointedAt.Equal(told.CheckpointedAt) {
			t.Errorf("archive %d: %+v", i, got)
		}
	}
	if entries, _ := os.ReadDir(out); len(entries) != 4 {
		t.Errorf("the folder holds %v", entries)
	}
}

// Whatever goes wrong, all containers go on and nothing is left.
func TestCheckpointPodAlwaysThaws(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, w *world) context.Context
		want    error
	}{
		{"no CRIU", func(t *testing.T, w *world) context.Context {
			w.setFail("CheckCRIU", fmt.Errorf("criu is not installed: %w", errdefs.ErrNotImplemented))
			return t.Context()
		}, errdefs.ErrNotImplemented},
		{"freeze fails", func(t *testing.T, w *world) context.Context {
			w.setFail("Pause", broken)
			return t.Context()
		}, broken},
		{"dump fails", func(t *testing.T, w *world) context.Context {
			w.setFail("Checkpoint", broken)
			return t.Context()
		}, broken},
		{"layer fails", func(t *testing.T, w *world) context.Context {
			w.setFail("Mounts", broken)
			return t.Context()
		}, broken},
		{"deadline", func(t *testing.T, w *world) context.Context {
			t.Cleanup(w.setBlock("Checkpoint"))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			t.Cleanup(cancel)
			return ctx
		}, context.DeadlineExceeded},
		{"cancelled", func(t *testing.T, w *world) context.Context {
			t.Cleanup(w.setBlock("Checkpoint"))
			ctx, cancel := context.WithCancel(t.Context())
			w.onCall("Checkpoint", cancel)
			return ctx
		}, context.Canceled},
		{"write fails", func(t *testing.T, _ *world) context.Context {
			disable, err := failpoint.Enable("checkpoint.write.after=error")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(disable)
			return t.Context()
		}, failpoint.ErrInjected},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, m := start(t)
			podID, ids := several(t, m)
			out := t.TempDir()
			if err := m.CheckpointPod(test.prepare(t, w), podID, out, ids); !errors.Is(err, test.want) {
				t.Errorf("got %v", err)
			}
			thawed(t, w, m)
			empty(t, out)
		})
	}
}

func TestCheckpointThawsInPanic(t *testing.T) {
	w, m := start(t)
	podID, ids := several(t, m)
	w.setFail("Checkpoint", errPanic)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = m.CheckpointPod(t.Context(), podID, t.TempDir(), ids)
	}()
	thawed(t, w, m)
	// Nobody is kept waiting either.
	if err := m.StopContainer(t.Context(), ids[0], time.Second); err != nil {
		t.Error(err)
	}
}

// A container that cannot be thawed now is thawed as soon as that works.
func TestCheckpointThawsLater(t *testing.T) {
	w, m := start(t)
	podID, ids := several(t, m)
	w.setFail("Resume", errors.New("broken"))
	if err := m.CheckpointPod(t.Context(), podID, t.TempDir(), ids); err == nil {
		t.Error("it succeeded")
	}
	w.setFail("Resume", nil)
	eventually(t, "all are thawed", func() bool {
		for _, c := range m.Containers() {
			if c.State != ContainerRunning {
				return false
			}
		}
		return true
	})
	thawed(t, w, m)
}

// An agent that is killed in a checkpoint leaves frozen containers; the next
// one thaws them.
func TestKilledInCheckpoint(t *testing.T) {
	for _, call := range []string{"Pause", "Checkpoint", "Resume"} {
		t.Run(call, func(t *testing.T) {
			w, root := newWorld(t), t.TempDir()
			m := w.manager(root)
			podID, ids := several(t, m)
			release := w.setBlock(call)
			defer release()
			done := make(chan error, 1)
			go func() { done <- m.CheckpointPod(context.Background(), podID, t.TempDir(), ids) }()
			eventually(t, call, func() bool { return w.count(call) > 0 })
			n, copied := w.clone(), t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(root)); err != nil {
				t.Fatal(err)
			}
			thawed(t, n, n.manager(copied))
			release()
			if err := <-done; err != nil {
				t.Errorf("the first agent: %v", err)
			}
		})
	}
}

// A stop waits for the checkpoint; it does not hang.
func TestStopWaitsForCheckpoint(t *testing.T) {
	w, m := start(t)
	_, id := running(t, m)
	release := w.setBlock("Checkpoint")
	defer release()
	location := filepath.Join(t.TempDir(), "c.tar")
	done := make(chan error, 1)
	go func() { done <- m.CheckpointContainer(context.Background(), id, location, 0) }()
	eventually(t, "a dump", func() bool { return w.count("Checkpoint") > 0 })
	stopped := make(chan error, 1)
	go func() { stopped <- m.StopContainer(context.Background(), id, time.Second) }()
	release()
	if err := errors.Join(<-done, <-stopped); err != nil {
		t.Error(err)
	}
	if c, err := m.Container(id); err != nil || c.State != ContainerExited {
		t.Errorf("it is %s, %v", c.State, err)
	}
}

func TestCheckpointPodRefuses(t *testing.T) {
	w, m := start(t)
	podID, ids := several(t, m)
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, pod, out string
		ids            []string
		want           func(error) bool
	}{
		{"unknown pod", "ffff", t.TempDir(), ids, errdefs.IsNotFound},
		{"no containers", podID, t.TempDir(), nil, errdefs.IsInvalidArgument},
		{"unknown container", podID, t.TempDir(), []string{"ffff"}, errdefs.IsNotFound},
		{"container twice", podID, t.TempDir(), []string{ids[0], ids[0]}, errdefs.IsInvalidArgument},
		{"one too few", podID, t.TempDir(), ids[:2], errdefs.IsFailedPrecondition},
		{"relative folder", podID, "out", ids, errdefs.IsInvalidArgument},
		{"no folder", podID, filepath.Join(full, "none"), ids, errdefs.IsInvalidArgument},
		{"file", podID, filepath.Join(full, "mine"), ids, errdefs.IsInvalidArgument},
		{"symbolic link", podID, link, ids, errdefs.IsInvalidArgument},
		{"full folder", podID, full, ids, errdefs.IsInvalidArgument},
	} {
		if err := m.CheckpointPod(t.Context(), test.pod, test.out, test.ids); !test.want(err) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(full, "mine")); err != nil {
		t.Error("a file of the caller is gone")
	}
	if err := m.StopContainer(t.Context(), ids[2], 0); err != nil {
		t.Fatal(err)
	}
	if err := m.CheckpointPod(t.Context(), podID, t.TempDir(), ids); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("an exited container: %v", err)
	}
	if n := w.count("Pause"); n > 0 {
		t.Errorf("%d containers were frozen", n)
	}
}

func TestCheckpointContainer(t *testing.T) {
	w, m := start(t)
	_, id := running(t, m)
	dir := t.TempDir()
	location := filepath.Join(dir, "c.tar")
	for range 2 { // the second replaces the first
		if err := m.CheckpointContainer(t.Context(), id, location, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if got := readArchive(t, location); got.Config.ID != id || got.Config.Name != "c" {
		t.Errorf("archive of %+v", got.Config)
	}
	thawed(t, w, m)
	empty(t, m.checkpointsDir())
	for _, bad := range []string{"", "c.tar", dir, location + "/", filepath.Join(dir, "none", "c.tar")} {
		if err := m.CheckpointContainer(t.Context(), id, bad, 0); !errdefs.IsInvalidArgument(err) {
			t.Errorf("location %q: %v", bad, err)
		}
	}
	defer w.setBlock("Checkpoint")()
	other := filepath.Join(dir, "other.tar")
	if err := m.CheckpointContainer(t.Context(), id, other, 20*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the timeout: %v", err)
	}
	thawed(t, w, m)
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left %v", entries)
	}
}

// What a person paused stays paused, and is stopped gently all the same.
func TestPauseContainer(t *testing.T) {
	w, root := newWorld(t), t.TempDir()
	m := w.manager(root)
	_, id := running(t, m)
	for range 2 {
		if err := m.PauseContainer(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.CheckpointContainer(t.Context(), id, filepath.Join(t.TempDir(), "c.tar"), 0); err != nil {
		t.Error(err)
	}
	if c, _ := m.Container(id); c.State != ContainerPaused || w.statuses()[id] != supervisor.StatusPaused {
		t.Errorf("it is %s", c.State)
	}
	if err := errors.Join(m.ResumeContainer(t.Context(), id), m.ResumeContainer(t.Context(), id)); err != nil {
		t.Error(err)
	}
	thawed(t, w, m)
	// The agent dies between the act and its record.
	if err := (fakeSupervisor{w}).Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = w.manager(root)
	if c, _ := m.Container(id); c.State != ContainerPaused {
		t.Errorf("after a restart it is %s", c.State)
	}
	if err := m.StopContainer(t.Context(), id, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := m.PauseContainer(t.Context(), id); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("an exited one: %v", err)
	}
}
