package cgroups

import "testing"

// What no cgroup tells of is taken for there, and what others lack is not.
func TestHas(t *testing.T) {
	weight, most := []string{"io.weight", "io.bfq.weight"}, []string{"io.max"}
	for name, test := range map[string]struct {
		files map[string]string
		names []string
		want  bool
	}{
		"no cgroup":    {nil, weight, true},
		"not enabled":  {map[string]string{"a/io.pressure": "", "a/cgroup.procs": ""}, weight, true},
		"lacking":      {map[string]string{"a/io.pressure": "", "a/io.max": ""}, weight, false},
		"there":        {map[string]string{"a/io.max": "", "a/io.bfq.weight": ""}, weight, true},
		"further down": {map[string]string{"a/b/io.max": ""}, most, true},
		"never":        {map[string]string{"a/io.max": ""}, nil, false},
	} {
		m := v2Manager(fixture(t, test.files))
		if got := m.Has("io", nil, test.names); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
		if m.Has("blkio", test.names, test.names) {
			t.Errorf("%s: a controller that is not there", name)
		}
	}
	dir := fixture(t, map[string]string{"memory.limit_in_bytes": "", "a/memory.limit_in_bytes": ""})
	v1 := newManager([]*hierarchy{{mountpoint: dir, controllers: []string{"memory"}}})
	if !v1.Has("memory", []string{"memory.limit_in_bytes"}, nil) || v1.Has("memory", []string{"memory.memsw.limit_in_bytes"}, nil) {
		t.Error("v1 is misread")
	}
}
