package nodeapi

import (
	"strings"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// A limit on memory means as much swap again, and v2 lacks what v1 has.
func TestSettleLimits(t *testing.T) {
	swappiness := int64(7)
	for name, test := range map[string]struct {
		config         Config
		res            *nodev1.Resources
		swap, warnings int64
	}{
		"none":    {Config{}, &nodev1.Resources{}, 0, 0},
		"no swap": {Config{}, &nodev1.Resources{MemoryBytes: 8 << 20, MemorySwap: 9 << 20}, -1, 1},
		"as much": {Config{Swap: true}, &nodev1.Resources{MemoryBytes: 8 << 20}, 16 << 20, 0},
		"said":    {Config{Swap: true}, &nodev1.Resources{MemoryBytes: 8 << 20, MemorySwap: 9 << 20}, 9 << 20, 0},
		"v1":      {Config{CgroupVersion: "hybrid"}, &nodev1.Resources{OomKillDisable: true, MemorySwappiness: &swappiness}, 0, 0},
		"v2":      {Config{CgroupVersion: "v2"}, &nodev1.Resources{OomKillDisable: true, MemorySwappiness: &swappiness}, 0, 2},
	} {
		s := &Server{config: test.config}
		warnings := s.settleLimits(test.res)
		if test.res.GetMemorySwap() != test.swap || int64(len(warnings)) != test.warnings {
			t.Errorf("%s: swap %d, warnings %q", name, test.res.GetMemorySwap(), warnings)
		}
		if kept := test.res.MemorySwappiness != nil && test.res.OomKillDisable; kept != (name == "v1") {
			t.Errorf("%s: swappiness %v, OOM killer %v", name, test.res.MemorySwappiness, test.res.OomKillDisable)
		}
	}
}

func TestSwapFollowsMemory(t *testing.T) {
	s := &Server{config: Config{Swap: true}}
	for _, test := range []struct {
		memory, swap, to, toSwap int64
		want                     int64
		refused                  bool
	}{
		{8, 16, 10, 0, 20, false},
		{8, 16, 10, 12, 12, false},
		{8, 12, 10, 0, 0, false},
		{8, 12, 13, 0, 0, true},
		{8, -1, 1000, 0, 0, false},
		{8, 16, 0, 0, 0, false},
	} {
		change := &nodev1.Resources{MemoryBytes: test.to, MemorySwap: test.toSwap}
		err := s.settleSwapUpdate(&nodev1.Resources{MemoryBytes: test.memory, MemorySwap: test.swap}, change)
		if (err != nil) != test.refused || change.GetMemorySwap() != test.want {
			t.Errorf("%+v: %d, %v", test, change.GetMemorySwap(), err)
		}
	}
}

func TestLimitsOfTheHost(t *testing.T) {
	s := &Server{config: Config{CgroupVersion: "v2", CgroupDriver: "systemd"}}
	for want, spec := range map[string]*nodev1.ContainerSpec{
		"":                                      {Resources: &nodev1.Resources{CpusetCpus: "0", NanoCpus: 1e7}, CgroupParent: "a.slice"},
		"range of CPUs is from 0.01 to":         {Resources: &nodev1.Resources{NanoCpus: 1e15}},
		"invalid value 2-1 for cpuset cpus":     {Resources: &nodev1.Resources{CpusetCpus: "2-1"}},
		"Requested CPUs are not available - re": {Resources: &nodev1.Resources{CpusetCpus: "0,8191"}},
		"kernel does not support CPU real-time": {Resources: &nodev1.Resources{CpuRtRuntime: 5}},
		"cgroup-parent for systemd cgroup shou": {CgroupParent: "/a"},
	} {
		err := s.validateHost(spec)
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func FuzzNumbers(f *testing.F) {
	for _, list := range []string{"", "0", "0-3,7", "3-0", ",", "-1", "0-99999999999"} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		if all, ok := numbers(list); ok && len(all) > maxNumber+1 {
			t.Errorf("%d numbers of %q", len(all), list)
		}
	})
}
