package nodeapi

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/failpoint"
	"google.golang.org/grpc/codes"
)

// withVolumes is a container with a named volume and an anonymous one.
func withVolumes(name string) *nodev1.ContainerSpec {
	spec := box("sleep")
	spec.Mounts = []*nodev1.Mount{
		{Type: nodev1.Mount_VOLUME, Source: name, Target: "/data", VolumeLabels: map[string]string{"made": "yes"}},
		{Type: nodev1.Mount_VOLUME, Target: "/scratch"},
	}
	return spec
}

func (n *node) volumeNames() []string {
	n.t.Helper()
	resp, err := n.volumes.List(n.ctx, &nodev1.ListVolumesRequest{Sizes: true})
	if err != nil {
		n.t.Fatal(err)
	}
	var out []string
	for _, v := range resp.GetVolumes() {
		out = append(out, v.GetName())
	}
	return out
}

func TestVolumesOfContainers(t *testing.T) {
	n := newNode(t)
	n.create("a", withVolumes("data"))
	info, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: "a"})
	if err != nil {
		t.Fatal(err)
	}
	mounts := info.GetContainer().GetMounts()
	if len(mounts) != 2 || mounts[0].GetPath() == "" || !mounts[1].GetAnonymous() || len(mounts[1].GetSource()) != 64 {
		t.Fatalf("mounts %v", mounts)
	}
	v, err := n.volumes.Inspect(n.ctx, &nodev1.InspectVolumeRequest{Name: "data"})
	if err != nil || v.GetLabels()["made"] != "yes" || len(v.GetUsedBy()) != 1 || v.GetMountpoint() != mounts[0].GetPath() {
		t.Errorf("%v %v", v, err)
	}
	_, err = n.volumes.Remove(n.ctx, &nodev1.RemoveVolumeRequest{Name: "data", Force: true})
	wantError(t, err, codes.FailedPrecondition, "remove data: volume is in use - ["+info.GetContainer().GetId()+"]")

	other := box("sleep")
	other.VolumesFrom = []string{"a:ro"}
	n.create("b", other)
	shared, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: "b"})
	if err != nil || len(shared.GetContainer().GetMounts()) != 2 || !shared.GetContainer().GetMounts()[0].GetReadOnly() || shared.GetContainer().GetMounts()[1].GetAnonymous() {
		t.Errorf("%v %v", shared.GetContainer().GetMounts(), err)
	}
	// An anonymous volume that another container took over stays.
	for _, name := range []string{"a", "b"} {
		const want = 2
		if _, err := n.containers.Remove(n.ctx, &nodev1.RemoveRequest{Container: name, Volumes: true}); err != nil {
			t.Fatal(err)
		}
		if got := n.volumeNames(); len(got) != want {
			t.Errorf("after %s there are %v", name, got)
		}
	}
	pruned, err := n.volumes.Prune(n.ctx, &nodev1.PruneVolumesRequest{})
	if err != nil || fmt.Sprint(pruned.GetNames()) != fmt.Sprint([]string{mounts[1].GetSource()}) {
		t.Errorf("%v %v", pruned, err)
	}
	pruned, err = n.volumes.Prune(n.ctx, &nodev1.PruneVolumesRequest{All: true, Labels: []string{"made=yes"}, WithoutLabels: []string{"keep"}})
	if err != nil || fmt.Sprint(pruned.GetNames()) != "[data]" {
		t.Errorf("%v %v", pruned, err)
	}
}

func TestFailedCreationKeepsNoAnonymousVolume(t *testing.T) {
	n := newNode(t)
	n.sandboxes.failCreate = fmt.Errorf("no space")
	if _, err := n.containers.Create(n.ctx, &nodev1.CreateRequest{Name: "x", Spec: withVolumes("data")}); err == nil {
		t.Fatal("no error")
	}
	// As docker's, a named volume that was made stays.
	if got := fmt.Sprint(n.volumeNames()); got != "[data]" {
		t.Errorf("left %v", got)
	}
	wrong := withVolumes("../x")
	_, err := n.containers.Create(n.ctx, &nodev1.CreateRequest{Spec: wrong})
	wantError(t, err, codes.InvalidArgument, "includes invalid characters for a local volume name")
	_, err = n.volumes.Create(n.ctx, &nodev1.CreateVolumeRequest{Name: "v", Driver: "nfs"})
	wantError(t, err, codes.NotFound, `plugin "nfs" not found`)
}

// TestCVE_2022_23648 makes containers of images whose volumes lie nowhere.
func TestCVE_2022_23648(t *testing.T) {
	n := newNode(t)
	for target, want := range map[string]string{
		"/../../../etc": "/etc", "relative/../../x": "/x", "/a/./b": "/a/b",
	} {
		n.images.images[0].Config.Config.Volumes = map[string]struct{}{target: {}}
		id := n.create("", box("sleep"))
		info, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: id})
		if err != nil || info.GetContainer().GetMounts()[0].GetTarget() != want {
			t.Errorf("%s: %v %v", target, info.GetContainer().GetMounts(), err)
		}
	}
	n.images.images[0].Config.Config.Volumes = map[string]struct{}{"/..": {}}
	_, err := n.containers.Create(n.ctx, &nodev1.CreateRequest{Spec: box("sleep")})
	wantError(t, err, codes.InvalidArgument, "destination can't be '/'")
	n.images.images[0].Config.Config.Volumes = nil
}

func TestWatchEvents(t *testing.T) {
	n := newNode(t)
	stream, err := n.events.Watch(n.ctx, &nodev1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// The watch has begun once something of it was seen.
	seen := make(chan *nodev1.Event, 64)
	go func() {
		defer close(seen)
		for {
			e, err := stream.Recv()
			if err != nil {
				return
			}
			seen <- e
		}
	}()
	eventually(t, "an event is seen", func() bool {
		if _, err := n.volumes.Create(n.ctx, &nodev1.CreateVolumeRequest{}); err != nil {
			t.Fatal(err)
		}
		return len(seen) > 0
	})
	if e := <-seen; e.GetType() != "volume" || e.GetAction() != "create" || e.GetAttributes()["driver"] != "local" || e.GetAt() == nil {
		t.Errorf("got %v", e)
	}
	n.stop()
	for range seen {
		// It ends with the agent.
	}
	n.serve()
}

// Between the removal of a container and that of its anonymous volumes the agent may be killed: the next one goes on.
func TestVolumesLeftByAnEarlierAgent(t *testing.T) {
	n := newNode(t)
	for _, point := range []string{"nodectl.remove.rest", "nodectl.remove.volumes"} {
		n.create("a", withVolumes("data"))
		n.create("stays", withVolumes("data"))
		disable, err := failpoint.Enable(point + "=error")
		if err != nil {
			t.Fatal(err)
		}
		_, err = n.containers.Remove(n.ctx, &nodev1.RemoveRequest{Container: "a", Volumes: true})
		disable()
		if err == nil || len(n.volumeNames()) != 3 {
			t.Fatalf("%s: %v, volumes %v", point, err, n.volumeNames())
		}
		n.stop()
		n.serve()
		eventually(t, "the volume is gone after "+point, func() bool { return len(n.volumeNames()) == 2 })
		if _, err := n.containers.Remove(n.ctx, &nodev1.RemoveRequest{Container: "stays", Volumes: true}); err != nil {
			t.Fatal(err)
		}
		if left := n.volumeNames(); len(left) != 1 || left[0] != "data" {
			t.Errorf("%s: left %v", point, left)
		}
	}
	n.noFiles()
	if notes, err := os.ReadDir(filepath.Join(n.root, "volumes", ".leaving")); err != nil || len(notes) != 0 {
		t.Errorf("%v %v", notes, err)
	}
}
