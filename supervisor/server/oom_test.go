package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/supervisor"
)

// glutton is a command that the kernel kills in a limited container.
const glutton = "dd if=/dev/zero of=/dev/null bs=100M count=1"

// limited is a container that may have 8 MiB.
func (n *node) limited(id, script string) supervisor.Container {
	c := n.container(id, script)
	bytes := int64(8 << 20)
	c.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &bytes, Swap: &bytes}
	return c
}

// subscribe returns the events from now on.
func (n *node) subscribe() <-chan supervisor.Event {
	n.t.Helper()
	events, err := n.Subscribe(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return events
}

// awaitEvent returns the next event, which must be of that type and container.
func (n *node) awaitEvent(events <-chan supervisor.Event, kind supervisor.EventType, id string) supervisor.Event {
	n.t.Helper()
	select {
	case e, ok := <-events:
		if !ok || e.Type != kind || e.ID != id {
			n.t.Fatalf("event %+v, %v in place of %s of container %s", e, ok, kind, id)
		}
		return e
	case <-time.After(limit):
		n.t.Fatalf("no event %s of container %s", kind, id)
	}
	return supervisor.Event{}
}

// noEvents fails the test when there is an event before those of a container
// that is started now and ends by itself.
func (n *node) noEvents(events <-chan supervisor.Event) {
	n.t.Helper()
	n.start(n.container("probe", "true"))
	n.awaitEvent(events, supervisor.EventExit, "probe")
	if _, err := n.Delete(n.t.Context(), "probe"); err != nil {
		n.t.Error(err)
	}
}

// TestOOM has the kernel kill in a container that goes on, before and after
// another supervisor adopts it.
func TestOOM(t *testing.T) {
	n := startNode(t)
	events := n.subscribe()
	n.start(n.limited("one", "sleep 1000"))
	n.start(n.limited("other", "sleep 1000"))
	kill := func(execID string) {
		t.Helper()
		if _, exit := n.execOutput("one", execID, glutton); exit.Code != 137 {
			t.Fatalf("exit %+v", exit)
		}
		at := time.Now()
		if e := n.awaitEvent(events, supervisor.EventOOM, "one"); e.Kills != 1 {
			t.Errorf("event %+v", e)
		}
		t.Logf("told %v after the end of the process", time.Since(at))
		if st, err := n.state("one"); err != nil || st.Status != supervisor.StatusRunning {
			t.Errorf("state %+v, %v", st, err)
		}
	}
	kill("a")
	kill("b")
	n.killSupervisor()
	n.ensure()
	events = n.subscribe()
	kill("c")
	n.noEvents(events)
	if _, err := n.Delete(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if e := n.awaitEvent(events, supervisor.EventExit, "one"); !e.Exit.OOMKilled {
		t.Errorf("exit %+v", e.Exit)
	}
}

// watches counts what a process has open that tells of memory. One eventfd is
// that of Go's poller.
func watches(t *testing.T, pid int) int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		if target == "anon_inode:[eventfd]" || strings.HasPrefix(filepath.Base(target), "memory.") {
			count++
		}
	}
	return count
}

// TestOOMBeforeEnd ends containers by the OOM killer, or shortly after it: that
// is told once, and before the exit.
func TestOOMBeforeEnd(t *testing.T) {
	n := startNode(t)
	info, err := n.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events := n.subscribe()
	n.noEvents(events)
	before := watches(t, info.PID)
	var at time.Time
	for i, script := range []string{"exec " + glutton, glutton + "; exit 3", "exec " + glutton, "exit 3"} {
		id := fmt.Sprintf("c%d", i)
		n.start(n.limited(id, script))
		if i < 3 {
			at = n.awaitEvent(events, supervisor.EventOOM, id).At
		}
		if e := n.awaitEvent(events, supervisor.EventExit, id); e.Exit.At.Before(at) || e.Exit.OOMKilled != (i < 3) || (e.Exit.Code != 137) != (i%2 == 1) {
			t.Errorf("exit %+v of %s", e.Exit, script)
		}
		if _, err := n.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	n.noEvents(events)
	if now := watches(t, info.PID); now != before {
		t.Errorf("%d descriptors of watches, before %d", now, before)
	}
}

// TestOOMBurst has the kernel kill again and again.
func TestOOMBurst(t *testing.T) {
	n := startNode(t)
	events := n.subscribe()
	n.start(n.limited("one", "for i in $(seq 60); do "+glutton+"; done; exec "+glutton))
	began := time.Now()
	var told int
	var kills uint64
	for e := range events {
		if e.Type == supervisor.EventExit {
			break
		}
		told++
		kills += e.Kills
	}
	// The last one is not held back.
	if most := int(time.Since(began)/(100*time.Millisecond)) + 2; told == 0 || told > most {
		t.Errorf("told %d times, at most %d are allowed", told, most)
	}
	if kills != 61 {
		t.Errorf("61 kills are counted as %d", kills)
	}
	t.Logf("61 kills in %v are told %d times", time.Since(began), told)
}
