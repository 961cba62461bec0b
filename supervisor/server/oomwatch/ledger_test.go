package oomwatch

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// group is a folder with a counter of kills.
func group(t *testing.T, dir string, kills int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "memory.events"), fmt.Appendf(nil, "max 9\noom_kill %d\n", kills), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestLedger has scopes whose counters are gone with them.
func TestLedger(t *testing.T) {
	slice := t.TempDir()
	scope := func(name string) map[string]string {
		return map[string]string{"": filepath.Join(slice, name+".scope")}
	}
	gone := func(name string) { _ = os.RemoveAll(scope(name)[""]) }
	var l Ledger
	// One is adopted with two kills, of three that the slice has had.
	group(t, slice, 3)
	group(t, scope("adopted")[""], 2)
	l.Enter(scope("adopted"))
	for _, name := range []string{"a", "b", "c", "fine"} {
		l.Enter(scope(name))
		group(t, scope(name)[""], 0)
	}
	leave := func(name string, known uint64, failed bool, want uint64) {
		t.Helper()
		if got := l.Leave(scope(name), known, failed); got != want {
			t.Errorf("%s: %d kills, want %d", name, got, want)
		}
	}
	// The one that was killed is gone, and another was killed in and lives.
	group(t, slice, 5)
	group(t, scope("b")[""], 1)
	gone("a")
	leave("a", 0, true, 1)
	// Killed by somebody else.
	gone("b")
	leave("b", 1, true, 1)
	// Two at once get one each.
	gone("c")
	gone("adopted")
	group(t, slice, 7)
	leave("c", 0, true, 1)
	leave("adopted", 2, true, 3)
	gone("fine")
	leave("fine", 0, false, 0)
	if len(l.slices) != 0 {
		t.Errorf("accounts are left: %v", l.slices)
	}
	// Left twice, or never entered.
	leave("fine", 4, true, 4)
}
