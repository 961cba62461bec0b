package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/failpoint"
)

// checkpointed makes a checkpoint of the pod of several, removes the pod, and
// returns the request that restores it.
func checkpointed(t *testing.T, m *Manager) RestorePodRequest {
	t.Helper()
	podID, ids := several(t, m)
	req := RestorePodRequest{Path: t.TempDir(), Config: podRequest("web").Config, Owner: OwnerCRI}
	if err := m.CheckpointPod(t.Context(), podID, req.Path, ids); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"c", "a", "b"} {
		req.Containers = append(req.Containers, containerRequest("", name).Config)
	}
	if err := m.RemovePod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	return req
}

func TestRestorePod(t *testing.T) {
	w, root := newWorld(t), t.TempDir()
	m := w.manager(root)
	req := checkpointed(t, m)
	podID, ids, err := m.RestorePod(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if len(ids) != 3 || len(w.statuses()) > 0 {
		t.Fatalf("containers %v, of which run %v", ids, w.statuses())
	}
	for name, id := range ids {
		c, err := m.Container(id)
		if err != nil || c.State != ContainerCreated || c.PodID != podID || c.Config.GetMetadata().GetName() != name {
			t.Errorf("container %s is %+v, %v", name, c, err)
		}
	}
	// It is still to be restored after a restart, and garbage beside it is not kept.
	if err := os.Mkdir(m.restoreDir("garbage"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = w.manager(root)
	if _, err := m.StartContainer(t.Context(), ids["a"], nil); err != nil {
		t.Fatal(err)
	}
	if got, want := w.restored[ids["a"]], ids["a"]; got == "" || got != originalOf(t, req, "a") {
		t.Errorf("container %s was restored from %q", want, got)
	}
	if entries, _ := os.ReadDir(m.restoresDir()); len(entries) != 2 {
		t.Errorf("to be restored are %v", entries)
	}
	if err := m.RemovePod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	empty(t, m.restoresDir())
	clean(t, w, m)
}

// originalOf is what the fake wrote when it dumped the container: its ID.
func originalOf(t *testing.T, req RestorePodRequest, name string) string {
	t.Helper()
	for _, archive := range []string{"0.tar", "1.tar", "2.tar"} {
		if got := readArchive(t, filepath.Join(req.Path, archive)); got.Config.Name == name {
			return got.Config.ID
		}
	}
	return "none"
}

// A checkpoint that does not agree with the request is refused, and nothing
// of the pod is left.
func TestRestorePodRefuses(t *testing.T) {
	w, m := start(t)
	good := checkpointed(t, m)
	for _, test := range []struct {
		name   string
		change func(req *RestorePodRequest)
		kind   error
		text   string
	}{
		{"no folder", func(r *RestorePodRequest) { r.Path = t.TempDir() }, errdefs.ErrInvalidArgument, "pod.json"},
		{"other handler", func(r *RestorePodRequest) { r.Handler = "kata" }, errdefs.ErrInvalidArgument, "handler"},
		{"one too few", func(r *RestorePodRequest) { r.Containers = r.Containers[:2] }, errdefs.ErrInvalidArgument, "3 containers"},
		{"one twice", func(r *RestorePodRequest) { r.Containers[1] = r.Containers[0] }, errdefs.ErrInvalidArgument, "twice"},
		{"other name", func(r *RestorePodRequest) { r.Containers[1] = containerRequest("", "x").Config }, errdefs.ErrInvalidArgument, `"x"`},
		{"other command", func(r *RestorePodRequest) { r.Containers[2].Command = []string{"evil"} }, errdefs.ErrInvalidArgument, "command"},
		{"other environment", func(r *RestorePodRequest) {
			r.Containers[2].Envs = []*runtime.KeyValue{{Key: "X", Value: []byte("y")}}
		}, errdefs.ErrInvalidArgument, "environment"},
		{"missing image", func(r *RestorePodRequest) { r.Containers[2].Image.Image = "missing" }, errdefs.ErrNotFound, "missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			req := good
			req.Containers = nil
			for _, name := range []string{"c", "a", "b"} {
				req.Containers = append(req.Containers, containerRequest("", name).Config)
			}
			test.change(&req)
			_, _, err := m.RestorePod(t.Context(), req)
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v", err)
			}
			clean(t, w, m)
			if entries, _ := os.ReadDir(m.restoresDir()); len(entries) > 0 {
				t.Errorf("left %v", entries)
			}
		})
	}
}

func TestRestorePodUndone(t *testing.T) {
	w, m := start(t)
	req := checkpointed(t, m)
	ended, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	for name, prepare := range map[string]func() context.Context{
		"restore.containers.after": func() context.Context { return t.Context() },
		"restore.pod.after":        func() context.Context { return t.Context() },
		"create.compare.before":    func() context.Context { return t.Context() },
		"run.record.before":        func() context.Context { return t.Context() },
		"":                         func() context.Context { <-ended.Done(); return ended },
	} {
		point := name
		if point == "" {
			point = "restore.none"
		}
		disable, err := failpoint.Enable(point + "=error")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.RestorePod(prepare(), req); err == nil {
			t.Errorf("%s: it succeeded", point)
		}
		disable()
		clean(t, w, m)
	}
	w.setFail("CheckCRIU", errdefs.ErrNotImplemented)
	if _, _, err := m.RestorePod(t.Context(), req); !errdefs.IsNotImplemented(err) {
		t.Errorf("without CRIU: %v", err)
	}
	w.setFail("CheckCRIU", nil)
	podID := readyPod(t, m)
	if _, _, err := m.RestorePod(t.Context(), req); !errdefs.IsAlreadyExists(err) {
		t.Errorf("with the pod there: %v", err)
	}
	if p, err := m.Pod(podID); err != nil || p.State != PodReady {
		t.Errorf("the pod that was there is %s, %v", p.State, err)
	}
}

// A folder that is full of links leads nowhere.
func TestRestorePodHostile(t *testing.T) {
	w, m := start(t)
	req := checkpointed(t, m)
	told, err := os.ReadFile(filepath.Join(req.Path, podCheckpointName))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(dir string) error{
		"link to pod.json": func(dir string) error {
			return os.Symlink(filepath.Join(req.Path, podCheckpointName), filepath.Join(dir, podCheckpointName))
		},
		"links to archives": func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, podCheckpointName), told, 0o600),
				os.Symlink(filepath.Join(req.Path, "0.tar"), filepath.Join(dir, "0.tar")))
		},
		"climbing": func(dir string) error {
			text := strings.Replace(string(told), `"0.tar"`, `"../0.tar"`, 1)
			return os.WriteFile(filepath.Join(dir, podCheckpointName), []byte(text), 0o600)
		},
		"huge": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, podCheckpointName), []byte(strings.Repeat(" ", podCheckpointLimit)+string(told)), 0o600)
		},
	} {
		bad := req
		bad.Path = t.TempDir()
		if err := change(bad.Path); err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.RestorePod(t.Context(), bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v", name, err)
		}
		clean(t, w, m)
	}
}
