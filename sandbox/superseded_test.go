package sandbox

import (
	"slices"
	"testing"

	"github.com/nodeagent/nodeagent/supervisor"
)

// Of exited containers those go that have two later ones of their name, the
// oldest first, and only as many as are too many.
func TestRemoveSuperseded(t *testing.T) {
	w, m := start(t)
	podID := readyPod(t, m)
	end := func(name string, attempt uint32) string {
		req := containerRequest(podID, name)
		req.Config.Metadata.Attempt = attempt
		id, err := m.CreateContainer(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.StartContainer(t.Context(), id, nil); err != nil {
			t.Fatal(err)
		}
		fakeSupervisor{w}.end(id, supervisor.Exit{})
		if _, err := m.WaitContainer(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	var crashing []string
	for attempt := range uint32(6) {
		crashing = append(crashing, end("crashing", attempt))
	}
	job := end("job", 0)
	left := func() (ids []string) {
		for _, c := range m.Containers() {
			ids = append(ids, c.ID)
		}
		slices.Sort(ids)
		return ids
	}
	check := func(limit int, want ...string) {
		t.Helper()
		m.removeSuperseded(t.Context(), limit)
		slices.Sort(want)
		if got := left(); !slices.Equal(got, want) {
			t.Errorf("%d are left, want %d", len(got), len(want))
		}
	}
	check(7, append([]string{job}, crashing...)...)
	check(5, append([]string{job}, crashing[2:]...)...)
	check(0, append([]string{job}, crashing[4:]...)...)
	if err := m.RemovePod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	clean(t, w, m)
}
