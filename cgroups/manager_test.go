package cgroups

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	oci "github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// fixture makes files with content in a folder.
func fixture(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func v2Manager(dir string) *Manager {
	return newManager([]*hierarchy{{mountpoint: dir, v2: true, controllers: []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}}})
}

func TestPathsThatAreNone(t *testing.T) {
	m := v2Manager(t.TempDir())
	ctx := context.Background()
	for _, path := range []string{"", "/", ".", "..", "/..", "a/../..", "/pod/../../etc", "/a/..", "a\x00b", "a\nb", "//"} {
		for name, call := range map[string]func() error{
			"Create": func() error { return m.Create(ctx, path, nil) },
			"Update": func() error { return m.Update(ctx, path, nil) },
			"Remove": func() error { return m.Remove(ctx, path) },
			"Kill":   func() error { return m.Kill(ctx, path) },
			"Procs":  func() error { _, err := m.Procs(path); return err },
			"Stats":  func() error { _, err := m.Stats(ctx, path); return err },
			"OOM":    func() error { _, err := m.OOMKills(path); return err },
		} {
			if err := call(); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s of %q: %v", name, path, err)
			}
		}
		if m.Exists(path) {
			t.Errorf("%q exists", path)
		}
	}
}

func TestExpandUnit(t *testing.T) {
	for unit, want := range map[string]string{
		"kubepods.slice":                                "/kubepods.slice",
		"kubepods-burstable-pod1.slice":                 "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice",
		"kubepods-pod1.slice:nodeagent:abc":             "/kubepods.slice/kubepods-pod1.slice/nodeagent-abc.scope",
		"kubepods-pod1.slice/x.scope":                   "/kubepods.slice/kubepods-pod1.slice/x.scope",
		"kubepods-pod1.slice::abc":                      "/kubepods.slice/kubepods-pod1.slice/abc.scope",
		"kubepods-pod1.slice:x:kubepods-pod1-sub.slice": "/kubepods.slice/kubepods-pod1.slice/kubepods-pod1-sub.slice",
	} {
		got, err := expandUnit(unit)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", unit, got, err, want)
		}
	}
	for _, unit := range []string{"", "x", ".slice", "a--b.slice", "-a.slice", "a/b.slice", "a.slice:b", "a/b", "a.slice:b/c", "a.slice:b:", "a.slice:b/c:d", "a.slice:b:c:d"} {
		if got, err := expandUnit(unit); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %q, %v", unit, got, err)
		}
	}
	m := v2Manager(t.TempDir())
	m.driver = Systemd
	if got, err := m.clean("a-b.slice:p:n"); err != nil || got != "/a.slice/a-b.slice/p-n.scope" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := m.clean("/a.slice/x"); err != nil || got != "/a.slice/x" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := m.clean("/a-b.slice"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSlicePath(t *testing.T) {
	for slice, want := range map[string]string{
		"a.slice": "/a.slice", "a-b.slice": "/a.slice/a-b.slice", "/a.slice": "/a.slice", "/a.slice/a-b.slice": "/a.slice/a-b.slice",
	} {
		if got, err := SlicePath(slice); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", slice, got, err, want)
		}
	}
	for _, slice := range []string{"", "a", "/a", "-.slice", ".slice", "a--b.slice", "/a-b.slice", "/b.slice/a-b.slice", "a.slice/a-b.slice", "/a.slice/", "/a.slice/../a.slice"} {
		if got, err := SlicePath(slice); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %q, %v", slice, got, err)
		}
	}
	if got := SliceBelow("/a.slice/a-b.slice", "c"); got != "/a.slice/a-b.slice/a-b-c.slice" {
		t.Error(got)
	}
}

func TestUnitOf(t *testing.T) {
	res := &specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(5000))},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 20))},
	}
	u := unit("/kubepods.slice/kubepods-pod1.slice", res)
	if u.Name != "kubepods-pod1.slice" || u.Parent != "kubepods.slice" || !u.Systemd {
		t.Errorf("unit %+v", u)
	}
	if u.CpuShares != 1024 || u.CpuWeight != 100 || u.CpuQuota != 5000 || u.Memory != 1<<20 {
		t.Errorf("resources %+v", u.Resources)
	}
	if u := unit("/a.slice", nil); u.Parent != "-.slice" {
		t.Errorf("parent %q", u.Parent)
	}
}

func TestSystemdNeedsSystemd(t *testing.T) {
	if isDir("/run/systemd/system") {
		t.Skip("systemd runs here")
	}
	if _, err := New(Config{Driver: Systemd}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%v", err)
	}
	if _, err := New(Config{Driver: "upstart"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%v", err)
	}
	if _, err := New(Config{Root: t.TempDir()}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%v", err)
	}
}

func TestStatsV2(t *testing.T) {
	const mib = 1 << 20
	dir := fixture(t, map[string]string{
		"pod/cpu.stat":               "usage_usec 300\nuser_usec 200\nsystem_usec 100\nnr_periods 7\nnr_throttled 3\nthrottled_usec 50\n",
		"pod/memory.current":         "10485760\n",
		"pod/memory.peak":            "20971520\n",
		"pod/memory.max":             "max\n",
		"pod/memory.swap.current":    "4096\n",
		"pod/memory.swap.max":        "8192\n",
		"pod/memory.events":          "low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\n",
		"pod/memory.stat":            "anon 1048576\nfile 2097152\nkernel_stack 16\nslab 32\nsock 8\nfile_mapped 64\ninactive_anon 5\nactive_anon 6\ninactive_file 3145728\nactive_file 7\npgfault 100\npgmajfault 9\n",
		"pod/pids.current":           "4\n",
		"pod/pids.max":               "100\n",
		"pod/pids.events":            "max 6\n",
		"pod/io.stat":                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n259:1 rbytes=5\n",
		"pod/cpu.pressure":           "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"pod/hugetlb.2MB.current":    "2097152\n",
		"pod/hugetlb.2MB.events":     "max 3\n",
		"pod/cgroup.procs":           "12\n11\n",
		"pod/container/cgroup.procs": "13\n11\n0\n",
	})
	m := v2Manager(dir)
	m.hugepages = []string{"2MB"}
	got, err := m.Stats(context.Background(), "/pod")
	if err != nil {
		t.Fatal(err)
	}
	want := &Stats{
		At:  got.At,
		CPU: &CPUStats{UsageNanos: 300000, UserNanos: 200000, SystemNanos: 100000, Periods: 7, ThrottledPeriods: 3, ThrottledNanos: 50000},
		Memory: &MemoryStats{
			Usage: 10 * mib, MaxUsage: 20 * mib, RSS: mib, Cache: 2 * mib, MappedFile: 64,
			InactiveFile: 3 * mib, ActiveFile: 7, WorkingSet: 7 * mib, PageFaults: 100, MajorPageFaults: 9,
			FailCount: 12, SwapUsage: 4096, SwapLimit: 8192, KernelUsage: 48, Socket: 8, Slab: 32, OOMKills: 2,
			TotalActiveAnon: 6, InactiveAnon: 5,
		},
		Pids:    &PidsStats{Current: 4, Limit: 100, Refused: 6},
		IO:      []IOStats{{Major: 8, ReadBytes: 1, WriteBytes: 2, ReadOps: 3, WriteOps: 4}, {Major: 259, Minor: 1, ReadBytes: 5}},
		PSI:     map[string]PSIStats{"cpu": {Some: PSILine{Avg10: 1.5, Avg60: 0.25, TotalMicros: 77}}},
		Hugetlb: map[string]HugetlbStats{"2MB": {Usage: 2 << 20, Failcnt: 3}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n, err := m.OOMKills("/pod"); err != nil || n != 2 {
		t.Errorf("OOM kills %d, %v", n, err)
	}
	if pids, err := m.Procs("/pod"); err != nil || !slices.Equal(pids, []int{11, 12, 13}) {
		t.Errorf("processes %v, %v", pids, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Stats(ctx, "/pod"); err == nil {
		t.Error("Stats went on though cancelled")
	}
}

func TestLimitsV2(t *testing.T) {
	dir := fixture(t, map[string]string{
		"pod/cpu.weight": "100\n", "pod/cpu.max": "max 50000\n", "pod/cpuset.cpus": "\n", "pod/cpuset.mems": "\n",
		"pod/memory.max": "max\n", "pod/memory.current": "4096\n", "pod/memory.swap.max": "max\n", "pod/memory.low": "0\n",
		"pod/memory.high": "max\n", "pod/pids.max": "max\n", "pod/hugetlb.2MB.max": "max\n", "pod/hugetlb.2MB.rsvd.max": "max\n",
	})
	m := v2Manager(dir)
	err := m.Update(context.Background(), "/pod", &specs.LinuxResources{
		CPU:            &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(25000)), Cpus: "0-1"},
		Memory:         &specs.LinuxMemory{Limit: ptr(int64(8192)), Swap: ptr(int64(12288)), Reservation: ptr(int64(100))},
		Pids:           &specs.LinuxPids{Limit: ptr(int64(5))},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 0}},
		Unified:        map[string]string{"memory.high": "6000"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"cpu.weight": "100", "cpu.max": "25000 50000", "cpuset.cpus": "0-1", "memory.max": "8192", "memory.swap.max": "4096",
		"memory.low": "100", "memory.high": "6000", "pids.max": "5", "hugetlb.2MB.max": "0", "hugetlb.2MB.rsvd.max": "0",
	} {
		data, err := os.ReadFile(filepath.Join(dir, "pod", name))
		// The fixture's files keep what a shorter write does not reach.
		if err != nil || !strings.HasPrefix(string(data), want) {
			t.Errorf("%s is %q, %v; want %q", name, data, err, want)
		}
	}
	err = m.Update(context.Background(), "/pod", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1000))}})
	if !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a limit below use: %v", err)
	}
}

func TestFiles(t *testing.T) {
	m := v2Manager(fixture(t, map[string]string{"pod/memory.high": "max\n", "pod/cpu.max": "max 100000\n"}))
	held, err := m.Files("/pod", []string{"memory.high", "cpu.max", "memory.gone", "../memory.high", "memory./../memory.high", "odd.file"})
	if want := map[string]string{"memory.high": "max", "cpu.max": "max 100000"}; err != nil || !maps.Equal(held, want) {
		t.Errorf("%v, %v", held, err)
	}
	if _, err := m.Files("/a/../b", nil); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

func TestLimitsRefused(t *testing.T) {
	dir := fixture(t, map[string]string{"pod/cgroup.procs": "", "pod/memory.max": "max\n"})
	m := newManager([]*hierarchy{{mountpoint: dir, v2: true, controllers: []string{"memory"}}})
	for name, c := range map[string]struct {
		res  *specs.LinuxResources
		kind func(error) bool
	}{
		"no pids controller": {&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(3))}}, errdefs.IsFailedPrecondition},
		"no hugetlb":         {&specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB"}}}, errdefs.IsFailedPrecondition},
		"page size":          {&specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../2MB"}}}, errdefs.IsInvalidArgument},
		"unified elsewhere":  {&specs.LinuxResources{Unified: map[string]string{"memory/../../x": "1"}}, errdefs.IsInvalidArgument},
		"unified core":       {&specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}, errdefs.IsInvalidArgument},
		"unified missing":    {&specs.LinuxResources{Unified: map[string]string{"cpu.max": "1"}}, errdefs.IsFailedPrecondition},
		"block I/O":          {&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{}}, errdefs.IsInvalidArgument},
		"swap below memory": {&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(10)), Swap: ptr(int64(5))}},
			errdefs.IsInvalidArgument},
	} {
		if err := m.Update(context.Background(), "/pod", c.res); !c.kind(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUnified goes through the v2 tree of a hybrid host, or through v2 itself.
func TestUnified(t *testing.T) {
	testenv.Root(t)
	host, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(host.hierarchies, func(h *hierarchy) bool { return h.v2 })
	if i < 0 {
		t.Skip("no cgroup v2 here")
	}
	m, err := New(Config{Root: host.hierarchies[i].mountpoint})
	if err != nil {
		t.Fatal(err)
	}
	if m.Mode() != V2 || len(m.hierarchies) != 1 {
		t.Fatalf("mode %s, %d hierarchies", m.Mode(), len(m.hierarchies))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	top := "/nodeagent-test-" + strconv.Itoa(os.Getpid())
	path := top + "/pod/inner"
	t.Cleanup(func() {
		if err := m.Remove(context.Background(), top); err != nil {
			t.Error(err)
		}
	})
	if err := m.Create(ctx, path, nil); err != nil {
		t.Fatal(err)
	}
	process(t, m, path, "burn")
	if err := writeFile(m.hierarchies[0].dir(path)+"/cgroup.freeze", "1"); err != nil {
		t.Fatal(err)
	}
	s, err := m.Stats(ctx, top+"/pod")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/pressure"); err == nil && len(s.PSI) != 3 {
		t.Errorf("pressure of %d resources", len(s.PSI))
	}
	if err := m.Kill(ctx, top+"/pod"); err != nil {
		t.Fatal(err)
	}
	if pids, err := m.Procs(path); err != nil || len(pids) != 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
	if err := m.Remove(ctx, top); err != nil || m.Exists(top) {
		t.Errorf("remove: %v", err)
	}
}

func TestKillRefusesOneself(t *testing.T) {
	dir := fixture(t, map[string]string{"pod/cgroup.procs": strconv.Itoa(os.Getpid()) + "\n"})
	if err := v2Manager(dir).Kill(context.Background(), "/pod"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%v", err)
	}
}

func TestErrorNamesThePath(t *testing.T) {
	dir := fixture(t, map[string]string{"taken": "a file where a cgroup should be"})
	err := newManager([]*hierarchy{{mountpoint: dir, controllers: []string{"pids"}}}).Create(context.Background(), "/taken/pod", nil)
	if err == nil || !strings.Contains(err.Error(), dir+"/taken/pod") {
		t.Errorf("%v", err)
	}
}

func TestCreateEnablesControllers(t *testing.T) {
	dir := fixture(t, map[string]string{"cgroup.subtree_control": "cpu\n", "a/cgroup.subtree_control": "\n"})
	m := v2Manager(dir)
	if err := m.Create(context.Background(), "/a/b", nil); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"cgroup.subtree_control": "+cpuset +io +memory +hugetlb +pids", "a/cgroup.subtree_control": "+cpuset +cpu +io +memory +hugetlb +pids",
	} {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || string(data) != want {
			t.Errorf("%s: %q, %v; want %q", file, data, err, want)
		}
	}
}

// fakeUnit stands for libcontainer's managers, which need a running systemd.
type fakeUnit struct {
	pids  []int
	err   error
	calls []string
}

func (f *fakeUnit) Apply(int) error            { f.calls = append(f.calls, "apply"); return nil }
func (f *fakeUnit) Set(*oci.Resources) error   { f.calls = append(f.calls, "set"); return nil }
func (f *fakeUnit) Destroy() error             { f.calls = append(f.calls, "destroy"); return nil }
func (f *fakeUnit) GetAllPids() ([]int, error) { return f.pids, f.err }

func TestSystemdUnits(t *testing.T) {
	ctx := context.Background()
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	const slice = "kubepods-pod1.slice"
	for _, c := range []struct {
		name string
		unit fakeUnit
		do   func(*Manager) error
		want []string
		kind func(error) bool
	}{
		{"create", fakeUnit{}, func(m *Manager) error { return m.Create(ctx, slice, &specs.LinuxResources{}) }, []string{"apply", "set"}, nil},
		{"create without limits", fakeUnit{}, func(m *Manager) error { return m.Create(ctx, slice, nil) }, []string{"apply"}, nil},
		{"update", fakeUnit{}, func(m *Manager) error { return m.Update(ctx, slice, &specs.LinuxResources{}) }, []string{"set"}, nil},
		{"remove", fakeUnit{}, func(m *Manager) error { return m.Remove(ctx, slice) }, []string{"destroy"}, nil},
		{"remove what is gone", fakeUnit{err: os.ErrNotExist}, func(m *Manager) error { return m.Remove(ctx, slice) }, []string{"destroy"}, nil},
		{"remove with processes", fakeUnit{pids: []int{1}}, func(m *Manager) error { return m.Remove(soon, slice) }, nil, errdefs.IsFailedPrecondition},
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(dir+"/kubepods.slice/"+slice, 0o755); err != nil {
			t.Fatal(err)
		}
		m := v2Manager(dir)
		m.driver = Systemd
		m.systemd = systemdUnits{open: func(*oci.Cgroup) (unitManager, error) { return &c.unit, nil }}
		err := c.do(m)
		if c.kind == nil && err != nil || c.kind != nil && !c.kind(err) || !slices.Equal(c.unit.calls, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.name, c.unit.calls, err, c.want)
		}
	}
}
