package nodeapi

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/volume"
	"golang.org/x/sys/unix"
)

// What is started while prune looks at its size stays, and runs on.
func TestPruneSparesWhatIsStartedMeanwhile(t *testing.T) {
	n := newNode(t)
	n.create("quick", box("sleep"))
	n.layers.measured = func() {
		n.layers.measured = nil
		if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "quick"}); err != nil {
			t.Error(err)
		}
	}
	resp, err := n.containers.Prune(n.ctx, &nodev1.PruneContainersRequest{})
	if err != nil || len(resp.GetIds()) > 0 {
		t.Errorf("pruned %v %v", resp.GetIds(), err)
	}
	if state, _ := n.status("quick"); state != "running" {
		t.Errorf("it is %s", state)
	}
}

// A removal that comes after another tells of nothing again, nor does the end of
// what is gone.
func TestRemovalIsToldOnce(t *testing.T) {
	n := newNode(t)
	id := n.create("c", box("sleep"))
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	c, err := n.server.find(id)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.server.remove(n.ctx, c, removal{volumes: true, force: true}); err != nil {
			t.Fatal(err)
		}
	}
	c.State = sandbox.ContainerExited
	n.server.tellEnd(c)
	n.server.tellStart(c)
	all, _ := n.told("container destroy")
	for _, want := range []string{"container start", "container die", "container destroy"} {
		count := len(slices.DeleteFunc(slices.Clone(all), func(e string) bool { return e != want }))
		if count != 1 {
			t.Errorf("%s was told %d times", want, count)
		}
	}
	if n.server.keeps[id] != nil {
		t.Error("it is remembered")
	}
}

// The next agent tells nothing again of what runs.
func TestNextAgentTellsNoStartAgain(t *testing.T) {
	n := newNode(t)
	id := n.create("c", box("sleep"))
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	n.stop()
	n.serve()
	c, err := n.sandboxes.find(id)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the agent listens", func() bool {
		n.sandboxes.mu.Lock()
		defer n.sandboxes.mu.Unlock()
		return len(n.sandboxes.subscribers) > 0
	})
	n.sandboxes.mu.Lock()
	n.sandboxes.publish(sandbox.EventOOM, c)
	n.sandboxes.mu.Unlock()
	if all, _ := n.told("container oom"); slices.Contains(all, "container start") {
		t.Errorf("told %q", all)
	}
}

// A container that removes itself does so too when what it needs to start is not
// there.
func TestSelfRemovalOfWhatCannotStart(t *testing.T) {
	n := newNode(t)
	spec := withVolumes("data")
	spec.AutoRemove = true
	n.create("c", spec)
	if err := n.server.removeVolume("data"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a volume in use: %v", err)
	}
	if err := n.server.volumes.Remove("data", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "c"}); err == nil {
		t.Error("it was started")
	}
	eventually(t, "it is gone", func() bool { return len(n.sandboxes.Containers()) == 0 })
}

// A container that is started again finds its volume mounted, whenever its last
// end is acted upon.
func TestVolumeStaysMountedForWhoStarts(t *testing.T) {
	testenv.Root(t)
	n := newNode(t)
	spec := box("sleep")
	spec.Mounts = []*nodev1.Mount{{Type: nodev1.Mount_VOLUME, Source: "ram", Target: "/data", VolumeOptions: map[string]string{"type": "tmpfs"}}}
	id := n.create("c", spec)
	c, err := n.server.find(id)
	if err != nil {
		t.Fatal(err)
	}
	mounted := func() bool {
		var st unix.Statfs_t
		return unix.Statfs(n.server.volumes.Path("ram"), &st) == nil && st.Type == unix.TMPFS_MAGIC
	}
	release, err := n.server.useVolumes(n.ctx, n.server.specOf(c))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.server.unmountUnused([]string{"ram"}); err != nil || !mounted() {
		t.Errorf("it was unmounted under who is about to start: %v", err)
	}
	release()
	n.server.unmountVolumes(c)
	eventually(t, "it is unmounted", func() bool { return !mounted() })
	if err := os.WriteFile(filepath.Join(n.server.volumes.Path("ram"), "f"), nil, 0o600); err != nil {
		t.Error(err)
	}
	if _, err := n.server.volumes.Use(n.ctx, "missing"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if _, made, err := n.server.volumes.Create(volume.Spec{Name: "missing"}); err != nil || !made {
		t.Error(made, err)
	}
	if err := n.server.volumes.Remove("missing", nil); err != nil {
		t.Errorf("who failed to use it holds it: %v", err)
	}
}

// Of a container that an agent was killed over before it was whole the next one
// leaves nothing, though nobody asks for that.
func TestHalfMadeContainersGo(t *testing.T) {
	n := newNode(t)
	id := n.create("half", withVolumes("data"))
	n.create("whole", withVolumes("data"))
	c, err := n.server.find(id)
	if err != nil {
		t.Fatal(err)
	}
	pod, err := n.sandboxes.Pod(c.PodID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.server.volumes.Leave(anonymousVolumes(n.server.specOf(c))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.server.files.path(podKey(pod), makingName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.stop()
	n.serve()
	eventually(t, "it is gone", func() bool { return len(n.sandboxes.Containers()) == 1 && len(n.volumeNames()) == 2 })
	if state, _ := n.status("whole"); state != "created" {
		t.Errorf("the other one is %s", state)
	}
	n.create("half", box("sleep"))
}

// What hangs while it leaves holds up nobody who looks for long.
func TestSettleIsBounded(t *testing.T) {
	n := newNode(t)
	hang := make(chan struct{})
	n.server.goUnseen(func(context.Context) { <-hang })
	n.server.mu.Lock()
	for done := range n.server.leaving {
		n.server.leaving[done] = time.Now().Add(-lookPatience)
	}
	n.server.mu.Unlock()
	n.server.Settle(n.ctx, "List", &nodev1.ListRequest{})
	bounded, cancel := context.WithTimeout(n.ctx, 10*time.Millisecond)
	defer cancel()
	n.server.Settle(bounded, "Create", &nodev1.CreateRequest{Name: "c"})
	if bounded.Err() == nil {
		t.Error("who needs a name does not wait for it")
	}
	close(hang)
	n.server.Settle(n.ctx, "Create", &nodev1.CreateRequest{Name: "c"})
}
