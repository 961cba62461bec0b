package nodeapi

import (
	"strings"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// someCgroups has the controllers that are named, with all files.
type someCgroups []string

func (c someCgroups) Has(controller string, _, _ []string) bool {
	for _, have := range c {
		if have == controller {
			return true
		}
	}
	return false
}

// What the kernel cannot limit is told of and left out; the rest stays.
func TestDiscardLimits(t *testing.T) {
	all := func() *nodev1.Resources {
		return &nodev1.Resources{
			MemoryBytes: 1, MemoryReservation: 1, KernelMemory: 1, PidsLimit: 1, CpuShares: 1, CpuQuota: 1, CpusetCpus: "0", BlkioWeight: 10,
			BlkioWeightDevice: []*nodev1.DeviceRate{{}}, DeviceReadBps: []*nodev1.DeviceRate{{}}, DeviceWriteBps: []*nodev1.DeviceRate{{}},
			DeviceReadIops: []*nodev1.DeviceRate{{}}, DeviceWriteIops: []*nodev1.DeviceRate{{}},
		}
	}
	s := &Server{cgroups: someCgroups{}}
	res := all()
	warnings := s.discardLimits(res)
	if len(warnings) != len(limitations) || strings.TrimSpace(res.String()) != "" {
		t.Errorf("%d warnings, left %v", len(warnings), res)
	}
	for name, have := range map[string]someCgroups{"v1": {"memory", "pids", "cpu", "cpuset", "blkio"}, "v2": {"memory", "pids", "cpu", "cpuset", "io"}} {
		s.cgroups = have
		res := all()
		if warnings := s.discardLimits(res); len(warnings) != 1 || !strings.Contains(warnings[0], "kernel memory") || res.GetKernelMemory() != 0 || res.GetBlkioWeight() != 10 {
			t.Errorf("%s: %q, left %v", name, warnings, res)
		}
	}
	if warnings := s.discardLimits(nil); warnings != nil {
		t.Error(warnings)
	}
}

func TestPlatformWarnings(t *testing.T) {
	foreign := &ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "s390x"}}
	if w := platformWarnings(&nodev1.ContainerSpec{}, foreign); len(w) != 1 || !strings.Contains(w[0], "(linux/s390x) does not match") {
		t.Error(w)
	}
	for name, spec := range map[string]*nodev1.ContainerSpec{"asked for": {Platform: "linux/s390x"}} {
		if w := platformWarnings(spec, foreign); w != nil {
			t.Errorf("%s: %q", name, w)
		}
	}
	if w := platformWarnings(&nodev1.ContainerSpec{}, &ocispec.Image{}); w != nil {
		t.Error(w)
	}
}
