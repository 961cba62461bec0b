package cgroups

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// systemdManager gives a manager of a host where systemd owns the cgroups, and the name of a slice of the test's own,
// without its ending. Nothing of it may be left afterwards.
func systemdManager(t *testing.T) (*Manager, string) {
	t.Helper()
	testenv.Root(t)
	if !isDir("/run/systemd/system") {
		t.Skip("systemd does not run here")
	}
	m, err := New(Config{Driver: Systemd})
	if err != nil {
		t.Fatal(err)
	}
	if m.Mode() != V2 {
		t.Skip("systemd has cgroups of v1")
	}
	name := fmt.Sprintf("natest%d", os.Getpid())
	t.Cleanup(func() {
		if err := m.Kill(context.Background(), name+".slice"); err != nil {
			t.Error(err)
		}
		if err := m.Remove(context.Background(), name+".slice"); err != nil {
			t.Error(err)
		}
		m.Close()
		if left := systemctl(t, "list-units", "--all", "--plain", "--no-legend", name+"*"); left != "" {
			t.Errorf("units are left: %s", left)
		}
		if isDir(DefaultRoot + "/" + name + ".slice") {
			t.Error("the cgroup is left")
		}
	})
	return m, name
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// wantUnit compares what systemd says of a unit, and a cgroup's files.
func wantUnit(t *testing.T, unit string, properties, files map[string]string) {
	t.Helper()
	dir, err := SlicePath(unit)
	if err != nil {
		t.Fatal(err)
	}
	shown := strings.Split(systemctl(t, "show", "--property", strings.Join(slices.Collect(maps.Keys(properties)), ","), unit), "\n")
	for name, want := range properties {
		if !slices.Contains(shown, name+"="+want) {
			t.Errorf("%s: %s is not %s: %s", unit, name, want, shown)
		}
	}
	for name, want := range files {
		got, err := os.ReadFile(DefaultRoot + dir + "/" + name)
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s: %s is %q, %v; want %q", unit, name, got, err, want)
		}
	}
}

// inScope starts a process in a scope of a slice, as libcontainer does with a container's.
func inScope(t *testing.T, slice, name, role string) (c *exec.Cmd, gone <-chan struct{}) {
	t.Helper()
	c = exec.Command(os.Args[0])
	c.Env = append(os.Environ(), roleVariable+"="+role)
	if _, err := c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Wait() }()
	t.Cleanup(func() { _ = c.Process.Kill(); <-ended })
	m, err := manager.New(&oci.Cgroup{Name: name, ScopePrefix: "natest", Parent: slice, Systemd: true, Resources: &oci.Resources{SkipDevices: true}})
	if err == nil {
		err = m.Apply(c.Process.Pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, ended
}

func TestSystemdLimits(t *testing.T) {
	m, name := systemdManager(t)
	ctx := t.Context()
	slice := name + "-pod1.slice"
	limits := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20)), Reservation: ptr(int64(16 << 20))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(100))},
	}
	if err := m.Create(ctx, slice, limits); err != nil {
		t.Fatal(err)
	}
	weight := fmt.Sprint(oci.ConvertCPUSharesToCgroupV2Value(512))
	properties := map[string]string{
		"LoadState": "loaded", "ActiveState": "active", "ControlGroup": "/" + name + ".slice/" + slice,
		"MemoryMax": fmt.Sprint(64 << 20), "MemorySwapMax": fmt.Sprint(32 << 20), "MemoryLow": fmt.Sprint(16 << 20),
		"CPUWeight": weight, "CPUQuotaPerSecUSec": "500ms", "AllowedCPUs": "0", "TasksMax": "100",
	}
	files := map[string]string{
		"memory.max": fmt.Sprint(64 << 20), "memory.swap.max": fmt.Sprint(32 << 20), "memory.low": fmt.Sprint(16 << 20),
		"cpu.weight": weight, "cpu.max": "50000 100000", "cpuset.cpus": "0", "pids.max": "100",
	}
	wantUnit(t, slice, properties, files)
	systemctl(t, "daemon-reload")
	wantUnit(t, slice, properties, files)
	// Made again, as kubelet does: it is taken over and keeps its limits.
	if err := m.Create(ctx, slice, nil); err != nil {
		t.Fatal(err)
	}
	// By its folder, as kubelet names it.
	if err := m.Update(ctx, "/"+name+".slice/"+slice, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(128 << 20)), Swap: ptr(int64(-1))}, Pids: &specs.LinuxPids{Limit: ptr(int64(-1))},
		CPU: &specs.LinuxCPU{Quota: ptr(int64(-1)), Period: ptr(uint64(100000))}, Unified: map[string]string{"memory.high": fmt.Sprint(100 << 20)},
	}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"MemoryMax": fmt.Sprint(128 << 20), "MemorySwapMax": "infinity", "MemoryHigh": fmt.Sprint(100 << 20), "CPUQuotaPerSecUSec": "infinity", "TasksMax": "infinity",
	} {
		properties[name] = want
	}
	for name, want := range map[string]string{
		"memory.max": fmt.Sprint(128 << 20), "memory.swap.max": "max", "memory.high": fmt.Sprint(100 << 20), "cpu.max": "max 100000", "pids.max": "max",
	} {
		files[name] = want
	}
	wantUnit(t, slice, properties, files)
	systemctl(t, "daemon-reload")
	wantUnit(t, slice, properties, files)
	stats, err := m.Stats(ctx, slice)
	if err != nil || stats.Memory == nil || stats.Memory.Limit != 128<<20 || stats.CPU == nil || stats.Pids == nil {
		t.Errorf("stats %+v, %v", stats, err)
	}
	if err := m.Update(ctx, name+"-none.slice", limits); !errdefs.IsNotFound(err) {
		t.Errorf("update of none: %v", err)
	}
}

// What fails leaves systemd's view and the files as they were.
func TestSystemdUpdateFails(t *testing.T) {
	m, name := systemdManager(t)
	ctx := t.Context()
	slice := name + "-pod1.slice"
	if err := m.Create(ctx, slice, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(128 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(50))}}); err != nil {
		t.Fatal(err)
	}
	c, _ := inScope(t, slice, "fail", "eat")
	properties := map[string]string{"MemoryMax": fmt.Sprint(128 << 20), "TasksMax": "50"}
	files := map[string]string{"memory.max": fmt.Sprint(128 << 20), "pids.max": "50"}
	for what, test := range map[string]struct {
		res  *specs.LinuxResources
		kind func(error) bool
	}{
		"a CPU that is not there": {&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(60))}, CPU: &specs.LinuxCPU{Cpus: "4000"}}, errdefs.IsInvalidArgument},
		"memory below what is in use": {&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(60))},
			Memory: &specs.LinuxMemory{Limit: ptr(int64(4096))}}, errdefs.IsFailedPrecondition},
	} {
		if err := m.Update(ctx, slice, test.res); !test.kind(err) {
			t.Errorf("%s: %v", what, err)
		}
		wantUnit(t, slice, properties, files)
		systemctl(t, "daemon-reload")
		wantUnit(t, slice, properties, files)
	}
	if m.Exists(slice) && !isDir(fmt.Sprintf("/proc/%d", c.Process.Pid)) {
		t.Error("the process was killed")
	}
}

func TestSystemdScopes(t *testing.T) {
	m, name := systemdManager(t)
	ctx := t.Context()
	slice, scope := name+"-burstable-pod1.slice", name+"-burstable-pod1.slice:natest:c1"
	if err := m.Create(ctx, slice, nil); err != nil {
		t.Fatal(err)
	}
	c, gone := inScope(t, slice, "c1", "sleep")
	dir := "/" + name + ".slice/" + name + "-burstable.slice/" + slice + "/natest-c1.scope"
	if got, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Process.Pid)); err != nil || string(got) != "0::"+dir+"\n" {
		t.Fatalf("the process is in %q, %v; want %s", got, err, dir)
	}
	for _, path := range []string{scope, slice + "/natest-c1.scope", dir, slice} {
		if pids, err := m.Procs(path); err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
			t.Errorf("processes of %s: %v, %v", path, pids, err)
		}
		if _, err := m.Stats(ctx, path); err != nil || !m.Exists(path) {
			t.Errorf("statistics of %s: %v", path, err)
		}
	}
	if below := m.Children(slice); !slices.Equal(below, []string{"natest-c1.scope"}) {
		t.Errorf("below the slice: %v", below)
	}
	systemctl(t, "daemon-reload")
	// Processes are not killed by removing.
	soon, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := m.Remove(soon, slice); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("remove with a process: %v", err)
	}
	select {
	case <-gone:
		t.Fatal("removing killed the process")
	default:
	}
	if err := m.Kill(ctx, slice); err != nil {
		t.Fatal(err)
	}
	<-gone
	for range 2 {
		if err := m.Remove(ctx, slice); err != nil {
			t.Fatal(err)
		}
	}
	if m.Exists(slice) || m.Exists(scope) || !m.Exists(name+"-burstable.slice") {
		t.Error("not the slice alone is gone")
	}
}

// Slices below a slice go with it.
func TestSystemdTree(t *testing.T) {
	m, name := systemdManager(t)
	ctx := t.Context()
	for _, one := range []string{name + "-a-b.slice", name + "-a-c.slice", name + "-d.slice"} {
		if err := m.Create(ctx, one, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.Children(name + ".slice"); !slices.Equal(got, []string{name + "-a.slice", name + "-d.slice"}) {
		t.Errorf("children %v", got)
	}
	if err := m.Remove(ctx, name+"-a.slice"); err != nil {
		t.Fatal(err)
	}
	if left := systemctl(t, "list-units", "--all", "--plain", "--no-legend", name+"-a*"); left != "" {
		t.Errorf("units are left: %s", left)
	}
	if got := m.Children(name + ".slice"); !slices.Equal(got, []string{name + "-d.slice"}) {
		t.Errorf("children %v", got)
	}
}

func TestSystemdHold(t *testing.T) {
	m, name := systemdManager(t)
	ctx := t.Context()
	release, err := m.Hold(ctx, name+".slice")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Hold(ctx, name+".slice"); !errdefs.IsAlreadyExists(err) {
		t.Errorf("held twice: %v", err)
	}
	// What was made in it meanwhile stays, and so does it.
	if err := m.Create(ctx, name+"-pod1.slice", nil); err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil || !m.Exists(name+"-pod1.slice") {
		t.Errorf("release: %v", err)
	}
	if err := m.Remove(ctx, name+"-pod1.slice"); err != nil {
		t.Fatal(err)
	}
	if release, err = m.Hold(ctx, name+".slice"); err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil || m.Exists(name+".slice") {
		t.Errorf("release of an empty one: %v", err)
	}
}

// The OOM killer's count is read of a scope while there is one.
func TestSystemdOOM(t *testing.T) {
	m, name := systemdManager(t)
	ctx := t.Context()
	slice := name + "-pod1.slice"
	if err := m.Create(ctx, slice, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(32 << 20)), Swap: ptr(int64(32 << 20))}}); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), roleVariable+"=eat")
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	unit, err := manager.New(&oci.Cgroup{Name: "oom", ScopePrefix: "natest", Parent: slice, Systemd: true, Resources: &oci.Resources{SkipDevices: true}})
	if err == nil {
		err = unit.Apply(c.Process.Pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintln(stdin)
	if err := c.Wait(); err == nil || out.Len() > 0 {
		t.Errorf("it was not killed: %s", &out)
	}
	if n, err := m.OOMKills(slice); err != nil || n != 1 {
		t.Errorf("%d kills, %v", n, err)
	}
}
