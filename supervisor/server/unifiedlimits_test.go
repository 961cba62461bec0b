package server

import (
	"os"
	"path/filepath"
	"testing"
)

// An exec may come late into a cgroup of v2 that limits nothing, and into no other.
func TestUnifiedLimits(t *testing.T) {
	dir := t.TempDir()
	if unifiedLimits("") || unifiedLimits(filepath.Join(dir, "gone")) {
		t.Error("a cgroup that is not there limits")
	}
	for controllers, want := range map[string]bool{
		"\n": false, "hugetlb\n": hasHugePages(), "misc\n": true, "hugetlb pids\n": true,
	} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte(controllers), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := unifiedLimits(dir); got != want {
			t.Errorf("with %q: %v", controllers, got)
		}
	}
}

// What an exec's init decodes is small.
func TestWithout(t *testing.T) {
	got, err := without([]byte(`{"mounts": [1], "rootfs": "/r", "devices": null}`), unusedByExecs...)
	if err != nil || string(got) != `{"rootfs":"/r"}` {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := without([]byte("[]"), "a"); err == nil {
		t.Error("an array has fields")
	}
}
