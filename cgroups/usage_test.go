package cgroups

import (
	"fmt"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

func BenchmarkUsage(b *testing.B) {
	testenv.Root(b)
	m, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	path := fmt.Sprintf("/nodeagent-test-%d-usage", os.Getpid())
	if err := m.Create(b.Context(), path, nil); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Remove(b.Context(), path) })
	for b.Loop() {
		if _, err := m.ContainerUsage(b.Context(), path); err != nil {
			b.Fatal(err)
		}
	}
}

// What ContainerUsage and PodUsage read of a cgroup at rest is what Stats
// reads, also when files are open already, and of the cgroup that is there now.
func TestUsage(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	m, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	path, limit := fmt.Sprintf("/nodeagent-test-%d-usage", os.Getpid()), int64(64<<20)
	if _, err := m.PodUsage(t.Context(), path); !errdefs.IsNotFound(err) {
		t.Errorf("figures of a cgroup that is not there: %v", err)
	}
	create := func(limit int64) {
		if err := m.Create(t.Context(), path, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}); err != nil {
			t.Fatal(err)
		}
	}
	create(limit)
	t.Cleanup(func() { _ = m.Remove(t.Context(), path) })
	for range 2 {
		sameUsage(t, m, path, limit)
	}
	if m.keep.open == 0 {
		t.Error("nothing is kept open")
	}
	if err := m.Remove(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	create(2 * limit)
	sameUsage(t, m, path, 2*limit)
	if err := m.Remove(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ContainerUsage(t.Context(), path); !errdefs.IsNotFound(err) || m.keep.open != 0 || len(m.keep.groups) != 0 {
		t.Errorf("of a cgroup that is gone %d files are open, %v", m.keep.open, err)
	}
}

func sameUsage(t *testing.T, m *Manager, path string, limit int64) {
	t.Helper()
	pod, err := m.PodUsage(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	container, err := m.ContainerUsage(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := m.Stats(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if pod.Memory == nil || pod.Memory.Limit != uint64(limit) || pod.Pids == nil || time.Since(pod.At) > time.Minute {
		t.Errorf("%+v, memory %+v", pod, pod.Memory)
	}
	if container.Memory.SwapLimit != stats.Memory.SwapLimit {
		t.Errorf("%+v and %+v", container.Memory, stats.Memory)
	}
	for _, usage := range []*Stats{pod, container} {
		if usage.CPU.UsageNanos != stats.CPU.UsageNanos || usage.Memory.WorkingSet != stats.Memory.WorkingSet || !reflect.DeepEqual(usage.PSI, stats.PSI) {
			t.Errorf("%+v and %+v", usage, stats)
		}
	}
}

// Files are closed that nobody has read for a while, and none are kept where
// there is no room.
func TestKeptFilesExpire(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Leaks(t)
	k := newKeeper()
	defer k.close()
	read := func() {
		g := k.take("/a")
		if g == nil {
			t.Fatal("no room")
		}
		defer k.give("/a", g)
		if k.take("/a") != nil {
			t.Error("two readings have the same files")
		}
		if data, err := g.read(nil, keptFile{dir, "file"}); err != nil || string(data) != "1\n" {
			t.Errorf("%q, %v", data, err)
		}
	}
	read()
	read()
	k.expire()
	if k.open != 1 {
		t.Errorf("%d files are open", k.open)
	}
	k.most = 1
	if k.take("/b") != nil {
		t.Error("more is kept than there is room for")
	}
	k.groups["/a"].used = time.Now().Add(-keepTime)
	k.expire()
	if k.open != 0 || len(k.groups) != 0 {
		t.Errorf("%d files are open", k.open)
	}
	read()
}
