package nodeapi

import (
	"slices"
	"strings"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// told are the events since the server began that a test gave rise to, as
// "TYPE ACTION", once the last of them is there.
func (n *node) told(last string) (all []string, events []*nodev1.Event) {
	n.t.Helper()
	eventually(n.t, last+" is told", func() bool {
		all, events = nil, nil
		stream, err := n.events.Watch(n.ctx, &nodev1.WatchRequest{Since: timestamppb.New(n.server.started), Until: timestamppb.Now()})
		if err != nil {
			n.t.Fatal(err)
		}
		for {
			e, err := stream.Recv()
			if err != nil {
				break
			}
			all, events = append(all, e.GetType()+" "+e.GetAction()), append(events, e)
		}
		return slices.Contains(all, last)
	})
	return all, events
}

// What is done to images is told of as docker does, whoever does it.
func TestImageEvents(t *testing.T) {
	n := newNode(t)
	img := n.images.images[0]
	for _, c := range []imageservice.Change{
		{Action: imageservice.ActionPull, Image: img, Ref: "docker.io/library/box:latest"},
		{Action: imageservice.ActionPush, Image: img, Ref: "127.0.0.1:5000/me/box:1"},
		{Action: imageservice.ActionTag, Image: img, Ref: "docker.io/library/box:2"},
		{Action: imageservice.ActionUntag, Image: img, Ref: "docker.io/library/box:2"},
		{Action: imageservice.ActionDelete, Image: img},
	} {
		n.images.observer(c)
	}
	_, events := n.told("image delete")
	for i, want := range []struct{ action, id, name string }{
		{"pull", "box:latest", "box"}, {"push", "127.0.0.1:5000/me/box:1", "127.0.0.1:5000/me/box"},
		{"tag", img.ID, "box:2"}, {"untag", img.ID, img.ID}, {"delete", img.ID, img.ID},
	} {
		e := events[i]
		if e.GetAction() != want.action || e.GetId() != want.id || e.GetAttributes()["name"] != want.name || e.GetAttributes()["kind"] != "image" {
			t.Errorf("%s: %v", want.action, e)
		}
	}
}

// The kernel's killing is told as often as it is heard of, and with the end when nobody heard of it.
func TestOOMEvents(t *testing.T) {
	n := newNode(t)
	id := n.create("short", box("sleep"))
	f := n.sandboxes
	c, err := f.find(id)
	if err != nil {
		t.Fatal(err)
	}
	var ran sandbox.Container
	run := func(heard int) {
		t.Helper()
		if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: id}); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		for range heard {
			f.publish(sandbox.EventOOM, c)
		}
		ran = c.Container
		c.Reason = "OOMKilled"
		f.mu.Unlock()
		if _, err := n.containers.Kill(n.ctx, &nodev1.KillRequest{Container: id}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.containers.Wait(n.ctx, &nodev1.WaitRequest{Container: id}); err != nil {
			t.Fatal(err)
		}
	}
	run(2)
	run(0)
	f.mu.Lock()
	f.publish(sandbox.EventOOM, &fakeContainer{Container: ran}) // heard of too late
	f.mu.Unlock()
	run(1)
	var all []string
	eventually(t, "all ends are told", func() bool {
		all, _ = n.told("container die")
		all = slices.DeleteFunc(all, func(e string) bool { return e != "container oom" && e != "container die" })
		return len(all) >= 7
	})
	if got := strings.ReplaceAll(strings.Join(all, " "), "container ", ""); got != "oom oom die oom die oom die" {
		t.Errorf("got %q", got)
	}
}

// What nobody heard of is told once, when the agent looks again.
func TestLostOOMEvent(t *testing.T) {
	n := newNode(t)
	id := n.create("short", box("sleep"))
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	f := n.sandboxes
	again := func() {
		t.Helper()
		f.mu.Lock()
		f.oomKilled = true
		for s := range f.subscribers {
			delete(f.subscribers, s)
			close(s)
		}
		f.mu.Unlock()
		eventually(t, "a new subscription", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.subscribers) > 0
		})
	}
	again()
	n.told("container oom")
	again()
	if _, err := n.containers.Kill(n.ctx, &nodev1.KillRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	all, _ := n.told("container die")
	all = slices.DeleteFunc(all, func(e string) bool { return e != "container oom" })
	if len(all) != 1 {
		t.Errorf("told %d times", len(all))
	}
}

// The events of a container are in the order of docker's: a signal before the
// end that it brings, and a start before the restart that it belongs to.
func TestContainerEvents(t *testing.T) {
	n := newNode(t)
	id := n.create("ordered", box("sleep"))
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.containers.Restart(n.ctx, &nodev1.RestartRequest{Container: id, Timeout: durationpb.New(0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.containers.Kill(n.ctx, &nodev1.KillRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	n.told("container restart")
	eventually(t, "it has ended", func() bool {
		_, err := n.containers.Prune(n.ctx, &nodev1.PruneContainersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: id})
		return err != nil
	})
	all, _ := n.told("container destroy")
	all = slices.DeleteFunc(all, func(e string) bool { return e == "container prune" || e[:9] != "container" })
	want := []string{"create", "start", "kill", "kill", "die", "stop", "start", "restart", "kill", "die", "destroy"}
	for i := range want {
		want[i] = "container " + want[i]
	}
	if !slices.Equal(all, want) {
		t.Errorf("got %q", all)
	}
}
