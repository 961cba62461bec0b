package sandbox

import (
	"slices"
	"testing"

	"github.com/containerd/errdefs"
)

// A new name is a record like any other: it outlasts the agent.
func TestRenameContainer(t *testing.T) {
	w, root := newWorld(t), t.TempDir()
	m := w.manager(root)
	_, id := running(t, m)
	if err := m.RenameContainer(t.Context(), id, "new"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("one of kubelet's: %v", err)
	}
	c, err := m.findContainer(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.changeContainer(c, func(s *containerState) { s.Owner = OwnerNodectl }); err != nil {
		t.Fatal(err)
	}
	before := c.get().Config
	if err := m.RenameContainer(t.Context(), id, "new"); err != nil {
		t.Fatal(err)
	}
	if before.GetMetadata().GetName() == "new" {
		t.Error("the configuration that others hold has changed")
	}
	if s, err := m.getContainer(id); err != nil || s.Config.GetMetadata().GetName() != "new" {
		t.Errorf("recorded: %v", err)
	}
	if err := m.RenameContainer(t.Context(), "nothing", "new"); !errdefs.IsNotFound(err) {
		t.Errorf("an unknown one: %v", err)
	}
}

func TestProcesses(t *testing.T) {
	w := newWorld(t)
	m := w.manager(t.TempDir())
	_, id := running(t, m)
	pids, err := m.Processes(id)
	if err != nil || slices.Contains(pids, 0) {
		t.Errorf("%v %v", pids, err)
	}
	if err := m.StopContainer(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Processes(id); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("an exited one: %v", err)
	}
	if _, err := m.Processes("nothing"); !errdefs.IsNotFound(err) {
		t.Errorf("an unknown one: %v", err)
	}
}
