package host

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestDetect(t *testing.T) {
	f, err := Detect("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if f.Major < 3 {
		t.Errorf("kernel %q was read as %d.%d", f.Kernel, f.Major, f.Minor)
	}
	if !slices.Contains(f.Capabilities, "CAP_CHOWN") || slices.Contains(f.Capabilities, "CAP_CAP_CHOWN") {
		t.Errorf("capabilities: %v", f.Capabilities)
	}
}

// kubelet sends a limit for each huge page size, and a host may know the
// controller without having it mounted.
func TestHasController(t *testing.T) {
	v1, v2 := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(v1, "memory"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v2, "cgroup.controllers"), []byte("cpu hugetlb pids\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		root, name string
		want       bool
	}{{v1, "memory", true}, {v1, "hugetlb", false}, {v2, "hugetlb", true}, {v2, "huge", false}} {
		if got := hasController(test.root, test.name); got != test.want {
			t.Errorf("%s below %s: %v", test.name, test.root, got)
		}
	}
}

func TestAtLeast(t *testing.T) {
	f := Features{Major: 5, Minor: 12}
	for _, test := range []struct {
		major, minor int
		want         bool
	}{{5, 12, true}, {5, 13, false}, {6, 0, false}, {4, 19, true}} {
		if got := f.atLeast(test.major, test.minor); got != test.want {
			t.Errorf("5.12 at least %d.%d: %v", test.major, test.minor, got)
		}
	}
}

// The root of cgroup v2 has no file that tells; its children do, when there are any with the controller.
func TestSwap(t *testing.T) {
	for name, test := range map[string]struct {
		cgroups map[string]string
		boot    string
		want    bool
	}{
		"v1":               {map[string]string{"memory/memory.memsw.limit_in_bytes": "1"}, "", true},
		"v1 without":       {map[string]string{"memory/memory.limit_in_bytes": "1"}, "", false},
		"v2":               {map[string]string{"cgroup.controllers": "memory", "a/memory.max": "max", "a/memory.swap.max": "max"}, "swapaccount=0", true},
		"v2 without":       {map[string]string{"cgroup.controllers": "memory", "a/memory.max": "max"}, "quiet", false},
		"v2 and nothing":   {map[string]string{"cgroup.controllers": "memory"}, "quiet", true},
		"v2, switched off": {map[string]string{"cgroup.controllers": "memory", "a/cgroup.procs": ""}, "quiet swapaccount=0", false},
	} {
		cgroups, proc := t.TempDir(), t.TempDir()
		write := func(path, text string) {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for file, text := range test.cgroups {
			write(filepath.Join(cgroups, file), text)
		}
		write(filepath.Join(proc, "cmdline"), test.boot)
		write(filepath.Join(proc, "swaps"), "")
		if got := swap(cgroups, proc); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
