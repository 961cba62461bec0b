package cgroups

import (
	"fmt"
	"os"
	"reflect"
	"testing"
	"time"

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
		if _, err := m.Usage(b.Context(), path); err != nil {
			b.Fatal(err)
		}
	}
}

// What Usage reads of a cgroup at rest is what Stats reads.
func TestUsage(t *testing.T) {
	testenv.Root(t)
	m, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	path, limit := fmt.Sprintf("/nodeagent-test-%d-usage", os.Getpid()), int64(64<<20)
	if _, err := m.Usage(t.Context(), path); err == nil {
		t.Error("figures of a cgroup that is not there")
	}
	if err := m.Create(t.Context(), path, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Remove(t.Context(), path) })
	usage, err := m.Usage(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := m.Stats(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if usage.Memory == nil || usage.Memory.Limit != uint64(limit) || usage.Pids == nil || usage.CPU == nil || time.Since(usage.At) > time.Minute {
		t.Errorf("%+v, memory %+v", usage, usage.Memory)
	}
	if usage.CPU.UsageNanos != stats.CPU.UsageNanos || usage.Memory.WorkingSet != stats.Memory.WorkingSet ||
		usage.Memory.SwapLimit != stats.Memory.SwapLimit || !reflect.DeepEqual(usage.PSI, stats.PSI) {
		t.Errorf("%+v and %+v", usage, stats)
	}
}
