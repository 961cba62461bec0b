package sandbox

import (
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/cgroups"
)

func TestPodStatsNetwork(t *testing.T) {
	_, m := start(t)
	podID, _ := running(t, m)
	s, err := m.PodStats(t.Context(), podID)
	if err != nil {
		t.Fatal(err)
	}
	n := s.Linux.Network
	if n.DefaultInterface.GetName() != "eth0" || n.DefaultInterface.RxBytes.Value != 1 || n.DefaultInterface.TxBytes.Value != 3 ||
		len(n.Interfaces) != 1 || n.Interfaces[0].Name != "net1" {
		t.Errorf("network %v", n)
	}
	d, err := m.PodDetail(t.Context(), podID)
	if err != nil || len(d.Links) != 2 || d.Links[0].Tx.Dropped != 4 || d.At.IsZero() {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestContainerDetail(t *testing.T) {
	w, m := start(t)
	_, id := running(t, m)
	d, err := m.ContainerDetail(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if d.Processes != 1 || d.Open.Files == 0 || d.Cgroup.Memory.Usage != 7 || d.LayerBytes != 10 || d.Filesystem.Bytes == 0 {
		t.Errorf("%+v", d)
	}
	reads := w.count("Stats")
	if _, err := m.ContainerDetail(t.Context(), id); err != nil || w.count("Stats") != reads {
		t.Errorf("read again: %v", err)
	}
	if _, err := m.ContainerDetail(t.Context(), "none"); err == nil {
		t.Error("detail of no container")
	}
}

// One pod's cgroup that hangs is asked once, and costs the lists of others nothing.
func TestStatsOfHangingCgroup(t *testing.T) {
	w, m := start(t)
	podID, id := running(t, m)
	if _, err := m.ContainerStats(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	m.usage.groups.Drop(podID)
	release := w.setBlock("Stats")
	defer release()
	done := make(chan error)
	go func() {
		_, err := m.PodStats(t.Context(), podID)
		done <- err
	}()
	eventually(t, "the pod's reading hangs", func() bool { return w.count("Stats") == 2 })
	if _, err := m.ContainerStats(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("statistics of a pod that hangs")
	}
}

func TestCPURate(t *testing.T) {
	at := time.Now()
	reading := func(after time.Duration, nanos uint64) *cgroups.Stats {
		return &cgroups.Stats{At: at.Add(after), CPU: &cgroups.CPUStats{UsageNanos: nanos}}
	}
	for _, test := range []struct {
		before, after *cgroups.Stats
		want          uint64
	}{
		{nil, reading(0, 5), 0},
		{reading(0, 1e9), reading(2*time.Second, 2e9), 5e8},
		{reading(0, 2e9), reading(time.Second, 1e9), 0},
		{reading(0, 1), reading(0, 2), 0},
		{&cgroups.Stats{At: at}, reading(time.Second, 2), 0},
	} {
		if got := cpuRate(test.before, test.after); got != test.want {
			t.Errorf("%d, want %d", got, test.want)
		}
	}
}
