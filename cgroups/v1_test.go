package cgroups

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// The test binary starts itself as a process that does something in a cgroup.
const roleVariable = "NODEAGENT_CGROUPS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "bomb":
		bomb()
	case "burn":
		burn()
	case "sleep":
		begin()
	case "eat":
		eat()
	}
}

// begin waits until the test has put this process where it belongs.
func begin() { _, _ = bufio.NewReader(os.Stdin).ReadString('\n') }

// bomb starts itself over and over until the kernel refuses, and goes on trying.
func bomb() {
	if os.Getenv("NODEAGENT_CGROUPS_TEST_CHILD") == "" {
		begin()
	}
	for {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "NODEAGENT_CGROUPS_TEST_CHILD=1")
		_ = c.Start()
	}
}

// burn uses a CPU for ever.
func burn() {
	begin()
	for {
	}
}

// eat takes 64 MiB, says so, and stays.
func eat() {
	begin()
	hold := make([]byte, 64<<20)
	for i := range hold {
		hold[i] = byte(i)
	}
	fmt.Println("full", len(hold))
	begin()
}

// realManager gives a manager of this host and a cgroup of the test's own,
// which is killed and removed afterwards.
func realManager(t *testing.T) (*Manager, string) {
	t.Helper()
	testenv.Root(t)
	m, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/nodeagent-test-%d/%s", os.Getpid(), t.Name())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		top := fmt.Sprintf("/nodeagent-test-%d", os.Getpid())
		if err := m.Kill(ctx, top); err != nil {
			t.Error(err)
		}
		if err := m.Remove(ctx, top); err != nil {
			t.Error(err)
		}
		if m.Exists(top) {
			t.Errorf("%s is left", top)
		}
	})
	return m, path
}

// process starts the test binary in a role within a cgroup and lets it begin.
func process(t *testing.T, m *Manager, path, role string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), roleVariable+"="+role, "GOMAXPROCS=1")
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	for _, h := range m.hierarchies {
		if err := writeFile(h.dir(path)+"/cgroup.procs", strconv.Itoa(c.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stdin.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if role == "eat" {
		if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
			t.Fatalf("process said %q: %v", line, err)
		}
	}
	return c
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, ticker := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 20 s", what)
		case <-ticker.C:
		}
	}
}

func file(t *testing.T, m *Manager, controller, path, name string) string {
	t.Helper()
	h := m.byController[controller]
	if h == nil {
		t.Skipf("no %s controller here", controller)
	}
	data, err := readFile(h.dir(path) + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func ptr[T any](v T) *T { return &v }

func TestCreateSetsLimits(t *testing.T) {
	m, path := realManager(t)
	if m.Mode() == V2 {
		t.Skip("the files are v1's")
	}
	ctx := context.Background()
	err := m.Create(ctx, path, &specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(200000)), Cpus: "0"},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(50))},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ controller, file, value string }{
		{"cpu", "cpu.shares", "512"}, {"cpu", "cpu.cfs_quota_us", "50000"}, {"cpu", "cpu.cfs_period_us", "200000"},
		{"cpuset", "cpuset.cpus", "0"}, {"cpuset", "cpuset.mems", "0"},
		{"memory", "memory.limit_in_bytes", "67108864"}, {"memory", "memory.memsw.limit_in_bytes", "67108864"},
		{"pids", "pids.max", "50"},
	}
	for _, w := range want {
		if got := file(t, m, w.controller, path, w.file); got != w.value {
			t.Errorf("%s is %s, want %s", w.file, got, w.value)
		}
	}
	for _, h := range m.hierarchies {
		if !isDir(h.dir(path)) {
			t.Errorf("no %s", h.dir(path))
		}
	}
	// Again is no error; up and down in every order neither.
	for _, mib := range []int64{128, 32, 256, 16} {
		res := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(mib << 20), Swap: ptr(mib << 21)}}
		if err := m.Create(ctx, path, res); err != nil {
			t.Errorf("limit of %d MiB: %v", mib, err)
		}
		if got := file(t, m, "memory", path, "memory.memsw.limit_in_bytes"); got != strconv.FormatInt(mib<<21, 10) {
			t.Errorf("memsw limit %s after %d MiB", got, mib)
		}
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	m, path := realManager(t)
	ctx := context.Background()
	if err := m.Update(ctx, path, &specs.LinuxResources{}); !errdefs.IsNotFound(err) {
		t.Errorf("update of a missing cgroup: %v", err)
	}
	before := &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(300))}, Pids: &specs.LinuxPids{Limit: ptr(int64(40))}}
	if err := m.Create(ctx, path, before); err != nil {
		t.Fatal(err)
	}
	stats := func() *Stats {
		s, err := m.Stats(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	name := "cpu.shares"
	if m.Mode() == V2 {
		name = "cpu.weight"
	}
	shares := file(t, m, "cpu", path, name)
	err := m.Update(ctx, path, &specs.LinuxResources{
		CPU:  &specs.LinuxCPU{Shares: ptr(uint64(700))},
		Pids: &specs.LinuxPids{Limit: ptr(int64(1 << 60))}, // more than the kernel takes
	})
	if err == nil || !strings.Contains(err.Error(), "pids.max") {
		t.Fatalf("a limit too large: %v", err)
	}
	if got := file(t, m, "cpu", path, name); got != shares {
		t.Errorf("shares %s after a failed update, want %s", got, shares)
	}
	if err := m.Update(ctx, path, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(30))}}); err != nil {
		t.Fatal(err)
	}
	if got := stats().Pids.Limit; got != 30 {
		t.Errorf("pids limit %d, want 30", got)
	}
	if got := file(t, m, "cpu", path, name); got != shares {
		t.Errorf("shares %s after an update of pids, want %s", got, shares)
	}
	if err := m.Update(ctx, path, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}); err != nil {
		t.Fatal(err)
	}
	if got := stats().Pids.Limit; got != 0 {
		t.Errorf("pids limit %d, want none", got)
	}
}

func TestMemoryLimitBelowUse(t *testing.T) {
	m, path := realManager(t)
	ctx := context.Background()
	if err := m.Create(ctx, path, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(512 << 20)), Swap: ptr(int64(512 << 20))}}); err != nil {
		t.Fatal(err)
	}
	process(t, m, path, "eat")
	err := m.Update(ctx, path, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(8 << 20)), Swap: ptr(int64(8 << 20))}})
	if !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a limit below use: %v", err)
	}
	s, err := m.Stats(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Memory.Limit != 512<<20 {
		t.Errorf("limit %d after a failed update", s.Memory.Limit)
	}
}

func TestCreateUndoesOnError(t *testing.T) {
	m, path := realManager(t)
	err := m.Create(context.Background(), path, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(1 << 60))}})
	if err == nil {
		t.Fatal("no error")
	}
	if m.Exists(path) {
		t.Error("the cgroup is left")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.Create(ctx, path, nil); !errors.Is(err, context.Canceled) || m.Exists(path) {
		t.Errorf("cancelled: %v, exists %v", err, m.Exists(path))
	}
}

func TestKillForkBomb(t *testing.T) {
	m, path := realManager(t)
	if err := m.Create(context.Background(), path, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(150))}}); err != nil {
		t.Fatal(err)
	}
	process(t, m, path, "bomb")
	eventually(t, "the bomb grows", func() bool {
		pids, err := m.Procs(path)
		return err == nil && len(pids) >= 8
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.Kill(ctx, path); err != nil {
		t.Fatal(err)
	}
	if pids, err := m.Procs(path); err != nil || len(pids) > 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
	if err := m.Remove(ctx, path); err != nil {
		t.Fatal(err)
	}
}

// TestKillWithoutCgroupKill kills as on a host that has v1 alone.
func TestKillWithoutCgroupKill(t *testing.T) {
	m, path := realManager(t)
	if m.Mode() == V2 {
		t.Skip("v2 always has cgroup.kill on kernels we test on")
	}
	if err := m.Create(context.Background(), path, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(150))}}); err != nil {
		t.Fatal(err)
	}
	process(t, m, path, "bomb")
	eventually(t, "the bomb grows", func() bool {
		pids, err := m.Procs(path)
		return err == nil && len(pids) >= 8
	})
	v1 := newManager(slices.DeleteFunc(slices.Clone(m.hierarchies), func(h *hierarchy) bool { return h.v2 }))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := v1.Kill(ctx, path); err != nil {
		t.Fatal(err)
	}
	if pids, err := m.Procs(path); err != nil || len(pids) > 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
}

func TestKillFrozenAndNested(t *testing.T) {
	m, path := realManager(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	nested := path + "/a/b"
	if err := m.Create(ctx, nested, nil); err != nil {
		t.Fatal(err)
	}
	c := process(t, m, nested, "burn")
	if h := m.byController["freezer"]; h != nil {
		freezeV1(ctx, h.dir(nested))
		if got := file(t, m, "freezer", nested, "freezer.state"); got != "FROZEN" {
			t.Fatalf("state %s", got)
		}
	}
	if pids, err := m.Procs(path); err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
		t.Errorf("processes %v, %v; want %d", pids, err, c.Process.Pid)
	}
	// A cgroup beside it is none of Kill's business.
	beside := path + "-beside"
	if err := m.Create(ctx, beside, nil); err != nil {
		t.Fatal(err)
	}
	bystander := process(t, m, beside, "burn")
	if err := m.Kill(ctx, path); err != nil {
		t.Fatal(err)
	}
	if h := m.byController["freezer"]; h != nil {
		if got := file(t, m, "freezer", nested, "freezer.state"); got != "THAWED" {
			t.Errorf("state %s after Kill", got)
		}
	}
	if pids, err := m.Procs(beside); err != nil || !slices.Equal(pids, []int{bystander.Process.Pid}) {
		t.Errorf("beside: %v, %v", pids, err)
	}
	if err := m.Remove(ctx, path); err != nil {
		t.Fatal(err)
	}
	if m.Exists(path) || !m.Exists(beside) {
		t.Error("Remove removed the wrong ones")
	}
}

func TestKillAndRemoveOfNothing(t *testing.T) {
	m, path := realManager(t)
	ctx := context.Background()
	for range 2 {
		if err := m.Kill(ctx, path); err != nil {
			t.Error(err)
		}
		if err := m.Remove(ctx, path); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.Procs(path); !errdefs.IsNotFound(err) {
		t.Errorf("Procs: %v", err)
	}
	if _, err := m.Stats(ctx, path); !errdefs.IsNotFound(err) {
		t.Errorf("Stats: %v", err)
	}
	if _, err := m.OOMKills(path); !errdefs.IsNotFound(err) {
		t.Errorf("OOMKills: %v", err)
	}
}

func TestRemoveKillsNothing(t *testing.T) {
	m, path := realManager(t)
	if err := m.Create(context.Background(), path, nil); err != nil {
		t.Fatal(err)
	}
	c := process(t, m, path, "burn")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := m.Remove(ctx, path); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("Remove with a process: %v", err)
	}
	if pids, err := m.Procs(path); err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
		t.Errorf("processes %v, %v", pids, err)
	}
}

func TestStatsMove(t *testing.T) {
	m, path := realManager(t)
	ctx := context.Background()
	limit := int64(512 << 20)
	err := m.Create(ctx, path, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit, Swap: ptr(2 * limit)},
		CPU:    &specs.LinuxCPU{Quota: ptr(int64(5000)), Period: ptr(uint64(20000))},
	})
	if err != nil {
		t.Fatal(err)
	}
	first, err := m.Stats(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	process(t, m, path, "eat")
	process(t, m, path, "burn")
	var last *Stats
	eventually(t, "figures move", func() bool {
		if last, err = m.Stats(ctx, path); err != nil {
			t.Fatal(err)
		}
		return last.CPU.UsageNanos > first.CPU.UsageNanos+uint64(50*time.Millisecond) && last.CPU.ThrottledPeriods > 0 &&
			last.CPU.UserNanos > 0 && last.Memory.RSS >= 64<<20
	})
	mem := last.Memory
	switch {
	case mem.Usage < 64<<20 || mem.MaxUsage < mem.Usage/2:
		t.Errorf("usage %d, maximum %d", mem.Usage, mem.MaxUsage)
	case mem.Limit != uint64(limit) || mem.SwapLimit != uint64(limit):
		t.Errorf("limits %d, %d", mem.Limit, mem.SwapLimit)
	case mem.WorkingSet == 0 || mem.WorkingSet > mem.Usage || mem.PageFaults == 0:
		t.Errorf("working set %d, faults %d", mem.WorkingSet, mem.PageFaults)
	case last.Pids.Current < 2 || last.Pids.Limit != 0:
		t.Errorf("pids %+v", *last.Pids)
	case last.CPU.Periods == 0 || last.CPU.ThrottledNanos == 0:
		t.Errorf("cpu %+v", *last.CPU)
	case !last.At.After(first.At):
		t.Error("time does not pass")
	}
	if m.Mode() == Hybrid && last.PSI["cpu"].Some.TotalMicros == 0 && len(last.PSI) == 3 {
		t.Log("no CPU pressure seen")
	}
}

func TestOOMKills(t *testing.T) {
	m, path := realManager(t)
	limit := int64(24 << 20)
	ctx := context.Background()
	// The limit is on the outer cgroup, the kill happens in the inner one.
	if err := m.Create(ctx, path, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}); err != nil {
		t.Fatal(err)
	}
	inner := path + "/inner"
	if err := m.Create(ctx, inner, nil); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), roleVariable+"=eat")
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for _, h := range m.hierarchies {
		if err := writeFile(h.dir(inner)+"/cgroup.procs", strconv.Itoa(c.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = stdin.Write([]byte("\n"))
	if err := c.Wait(); err == nil {
		t.Fatal("the process was not killed")
	}
	for _, p := range []string{path, inner} {
		n, err := m.OOMKills(p)
		if err != nil || n != 1 {
			t.Errorf("%s: %d kills, %v", p, n, err)
		}
	}
	if s, err := m.Stats(ctx, path); err != nil || s.Memory.OOMKills != 1 {
		t.Errorf("stats %+v, %v", s, err)
	}
}
