package oomwatch

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// limit is how long anything in these tests may take.
const limit = 30 * time.Second

// small makes a cgroup that may have 8 MiB.
func small(t *testing.T) (dir string, paths map[string]string) {
	t.Helper()
	const root, bytes = "/sys/fs/cgroup", "8388608"
	settings := [][2]string{{"memory.limit_in_bytes", bytes}, {"memory.memsw.limit_in_bytes", bytes}}
	dir, paths = filepath.Join(root, "memory", "oomwatch-test"), map[string]string{}
	paths["memory"] = dir
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		settings = [][2]string{{"memory.max", bytes}, {"memory.swap.max", "0"}}
		dir = filepath.Join(root, "oomwatch-test")
		paths = map[string]string{"": dir}
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	for i, s := range settings {
		// Swap is counted where the kernel was built so.
		if err := os.WriteFile(filepath.Join(dir, s[0]), []byte(s[1]), 0); err != nil && (i == 0 || !errors.Is(err, os.ErrNotExist)) {
			t.Fatal(err)
		}
	}
	return dir, paths
}

// watch runs a watcher that its end or the test's closes.
func watch(t *testing.T, paths map[string]string, known uint64) (told <-chan uint64, end func() uint64) {
	t.Helper()
	w, err := Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	kills, last := make(chan uint64, 100), make(chan uint64, 1)
	go func() {
		n, err := w.Run(known, func(n uint64) { kills <- n })
		if err != nil {
			t.Error(err)
		}
		last <- n
	}()
	return kills, func() uint64 {
		w.Close()
		return await(t, last)
	}
}

func await(t *testing.T, c <-chan uint64) uint64 {
	t.Helper()
	select {
	case n := <-c:
		return n
	case <-time.After(limit):
		t.Fatal("it never comes")
	}
	return 0
}

// TestWatch has the kernel kill in a cgroup that several watch.
func TestWatch(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir, paths := small(t)
	kill := func() {
		t.Helper()
		cmd := exec.Command("sh", "-c", `echo $$ > "$0/cgroup.procs" && exec dd if=/dev/zero of=/dev/null bs=100M count=1`, dir)
		err := cmd.Run()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("it was not killed: %v", err)
		}
	}
	told, end := watch(t, paths, 0)
	for range 3 {
		kill()
		if n := await(t, told); n != 1 {
			t.Errorf("told of %d", n)
		}
	}
	before, endBefore := watch(t, paths, 1)
	if n := await(t, before); n != 2 {
		t.Errorf("of those before the watch %d are told", n)
	}
	none, endNone := watch(t, paths, 3)
	if n := endNone(); n != 3 || len(none) > 0 {
		t.Errorf("%d known, %d told", n, len(none))
	}
	if n := endBefore(); n != 3 {
		t.Errorf("%d known", n)
	}
	if n := Kills(paths); n != 3 {
		t.Errorf("%d kills", n)
	}
	// A watch does not keep the cgroup.
	if err := os.Remove(dir); err != nil {
		t.Error(err)
	}
	if n := end(); n != 3 || len(told) > 0 {
		t.Errorf("%d known, %d told", n, len(told))
	}
	if _, err := Open(paths); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open of what is gone: %v", err)
	}
	if n := Kills(paths); n != 0 {
		t.Errorf("%d kills in what is gone", n)
	}
}
