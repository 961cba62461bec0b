package cgroups

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Update sets limits of a cgroup that exists; what res leaves out stays as it
// is. On error everything it changed is set back. Device rules are ignored:
// libcontainer sets them, and a pod's cgroup has none. Limits of block I/O,
// RDMA and network classes are not for a pod and are refused.
//
// A memory limit below what is in use fails with errdefs.ErrFailedPrecondition.
func (m *Manager) Update(ctx context.Context, path string, res *specs.LinuxResources) error {
	p, err := m.clean(path)
	if err != nil {
		return err
	}
	if err := checkResources(res); err != nil {
		return err
	}
	if !m.Exists(path) {
		return fmt.Errorf("update cgroup %s: %w", path, errdefs.ErrNotFound)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("update cgroup %s: %w", path, err)
	}
	if m.systemd != nil && strings.HasSuffix(p, ".slice") {
		err = m.limitSlice(ctx, p, res)
	} else {
		err = m.limit(p, res, nil)
	}
	if err != nil {
		return fmt.Errorf("update cgroup %s: %w", path, err)
	}
	return nil
}

// limiter sets the limits of one controller.
type limiter struct {
	controller string
	wanted     func(*specs.LinuxResources) bool
	v1, v2     func(*writer, *specs.LinuxResources) error
}

var limiters = []limiter{
	{"cpu", func(r *specs.LinuxResources) bool {
		return r.CPU != nil && (r.CPU.Shares != nil || r.CPU.Quota != nil || r.CPU.Period != nil || r.CPU.Burst != nil || r.CPU.Idle != nil)
	}, cpuV1, cpuV2},
	{"cpuset", func(r *specs.LinuxResources) bool {
		return r.CPU != nil && (r.CPU.Cpus != "" || r.CPU.Mems != "")
	}, cpuset, cpuset},
	{"memory", func(r *specs.LinuxResources) bool {
		return r.Memory != nil && (r.Memory.Limit != nil || r.Memory.Swap != nil || r.Memory.Reservation != nil || r.Memory.Swappiness != nil)
	}, memoryV1, memoryV2},
	{"pids", func(r *specs.LinuxResources) bool {
		return r.Pids != nil && r.Pids.Limit != nil
	}, pids, pids},
	{"hugetlb", func(r *specs.LinuxResources) bool {
		return len(r.HugepageLimits) > 0
	}, hugetlbV1, hugetlbV2},
}

// limitSlice sets limits of a slice and tells systemd of them. They are set
// first since systemd takes some that the kernel then refuses.
func (m *Manager) limitSlice(ctx context.Context, p string, res *specs.LinuxResources) error {
	for _, h := range m.hierarchies {
		if h.v2 {
			// systemd turns on only those that its own units need.
			_ = h.enable(path.Dir(p))
		}
	}
	return m.limit(p, res, func() error { return m.systemd.update(ctx, p, res) })
}

// limit sets limits, all or none, and then does what is to be done with them;
// nil is nothing.
func (m *Manager) limit(p string, res *specs.LinuxResources, then func() error) error {
	if res == nil {
		return nil
	}
	var undo []func()
	err := m.limitEach(p, res, &undo)
	if err == nil && then != nil {
		err = then()
	}
	if err != nil {
		for _, u := range slices.Backward(undo) {
			u()
		}
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

func (m *Manager) limitEach(p string, res *specs.LinuxResources, undo *[]func()) error {
	for _, l := range limiters {
		if !l.wanted(res) {
			continue
		}
		h := m.byController[l.controller]
		if h == nil {
			return fmt.Errorf("this host has no %s controller: %w", l.controller, errdefs.ErrFailedPrecondition)
		}
		set := l.v1
		if h.v2 {
			set = l.v2
		}
		if err := set(&writer{dir: h.dir(p), undo: undo}, res); err != nil {
			return err
		}
	}
	return m.limitUnified(p, res, undo)
}

// limitUnified writes the files that res names itself.
func (m *Manager) limitUnified(p string, res *specs.LinuxResources, undo *[]func()) error {
	for _, file := range slices.Sorted(maps.Keys(res.Unified)) {
		controller, _, _ := strings.Cut(file, ".")
		h := m.byController[controller]
		if h == nil || !h.v2 {
			return fmt.Errorf("set %s: this host has no %s controller on cgroup v2: %w", file, controller, errdefs.ErrFailedPrecondition)
		}
		w := &writer{dir: h.dir(p), undo: undo}
		// Some files take a line at a time.
		for line := range strings.SplitSeq(strings.TrimRight(res.Unified[file], "\n"), "\n") {
			if err := w.set(file, line); err != nil {
				return err
			}
		}
	}
	return nil
}

var unifiedFile = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[A-Za-z0-9_]+)+$`)

// checkResources refuses what this package does not set, rather than pass
// over it.
func checkResources(res *specs.LinuxResources) error {
	if res == nil {
		return nil
	}
	if b := res.BlockIO; b != nil || len(res.Rdma) > 0 || res.Network != nil {
		return fmt.Errorf("limits of block I/O, RDMA and network are not for a pod's cgroup: %w", errdefs.ErrInvalidArgument)
	}
	for file := range res.Unified {
		if !unifiedFile.MatchString(file) || strings.HasPrefix(file, "cgroup.") {
			return fmt.Errorf("unified %q is not a controller's file: %w", file, errdefs.ErrInvalidArgument)
		}
	}
	for _, l := range res.HugepageLimits {
		if strings.ContainsAny(l.Pagesize, "/\x00") || l.Pagesize == "" {
			return fmt.Errorf("huge page size %q is not one: %w", l.Pagesize, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// writer writes the files of one cgroup and notes how to write back what was there.
type writer struct {
	dir  string
	undo *[]func()
}

// set writes a value; one that is there already is left.
func (w *writer) set(file, value string) error {
	path := w.dir + "/" + file
	if old, err := readFile(path); err == nil {
		was := strings.TrimSpace(string(old))
		if was == value {
			return nil
		}
		*w.undo = append(*w.undo, func() { _ = writeFile(path, was) })
	}
	return writeFile(path, value)
}

func (w *writer) has(file string) bool {
	_, err := readFile(w.dir + "/" + file)
	return err == nil
}

// number reads a file of one number; "max" and what cannot be read is 0.
func (w *writer) number(file string) uint64 {
	data, err := readFile(w.dir + "/" + file)
	if err != nil {
		return 0
	}
	n, _ := parseNumber(data)
	return n
}

func cpuV1(w *writer, res *specs.LinuxResources) error {
	c := res.CPU
	if c.Shares != nil {
		if err := w.set("cpu.shares", strconv.FormatUint(*c.Shares, 10)); err != nil {
			return err
		}
	}
	if c.Idle != nil {
		if err := w.set("cpu.idle", strconv.FormatInt(*c.Idle, 10)); err != nil {
			return err
		}
	}
	if err := bandwidthV1(w, c); err != nil {
		return err
	}
	if c.Burst != nil {
		return w.set("cpu.cfs_burst_us", strconv.FormatUint(*c.Burst, 10))
	}
	return nil
}

// bandwidthV1 sets period and quota. The kernel checks their ratio against
// the parent's after each write: where the period is refused, the quota may
// have to change first.
func bandwidthV1(w *writer, c *specs.LinuxCPU) error {
	var period, quota string
	if c.Period != nil && *c.Period != 0 {
		period = strconv.FormatUint(*c.Period, 10)
	}
	if c.Quota != nil && *c.Quota != 0 {
		quota = strconv.FormatInt(*c.Quota, 10)
	}
	if period != "" {
		err := w.set("cpu.cfs_period_us", period)
		if err == nil {
			period = ""
		} else if !errors.Is(err, unix.EINVAL) || quota == "" {
			return err
		}
	}
	if quota != "" {
		if err := w.set("cpu.cfs_quota_us", quota); err != nil {
			return err
		}
	}
	if period != "" {
		return w.set("cpu.cfs_period_us", period)
	}
	return nil
}

func cpuV2(w *writer, res *specs.LinuxResources) error {
	c := res.CPU
	if c.Idle != nil {
		if err := w.set("cpu.idle", strconv.FormatInt(*c.Idle, 10)); err != nil {
			return err
		}
	}
	if c.Shares != nil && *c.Shares != 0 {
		weight := oci.ConvertCPUSharesToCgroupV2Value(*c.Shares)
		if err := w.set("cpu.weight", strconv.FormatUint(weight, 10)); err != nil {
			return err
		}
	}
	if c.Quota != nil || c.Period != nil {
		if err := w.set("cpu.max", w.cpuMax(c)); err != nil {
			return err
		}
	}
	if c.Burst != nil {
		return w.set("cpu.max.burst", strconv.FormatUint(*c.Burst, 10))
	}
	return nil
}

// cpuMax gives the content of cpu.max; the part that c leaves out stays.
func (w *writer) cpuMax(c *specs.LinuxCPU) string {
	quota, period := "max", "100000"
	if data, err := readFile(w.dir + "/cpu.max"); err == nil {
		if f := strings.Fields(string(data)); len(f) == 2 {
			quota, period = f[0], f[1]
		}
	}
	if c.Quota != nil && *c.Quota != 0 {
		quota = "max"
		if *c.Quota > 0 {
			quota = strconv.FormatInt(*c.Quota, 10)
		}
	}
	if c.Period != nil && *c.Period != 0 {
		period = strconv.FormatUint(*c.Period, 10)
	}
	return quota + " " + period
}

func cpuset(w *writer, res *specs.LinuxResources) error {
	if res.CPU.Cpus != "" {
		if err := w.set("cpuset.cpus", res.CPU.Cpus); err != nil {
			return err
		}
	}
	if res.CPU.Mems != "" {
		return w.set("cpuset.mems", res.CPU.Mems)
	}
	return nil
}

func pids(w *writer, res *specs.LinuxResources) error {
	value := "max"
	if *res.Pids.Limit > 0 {
		value = strconv.FormatInt(*res.Pids.Limit, 10)
	}
	return w.set("pids.max", value)
}

func hugetlbV1(w *writer, res *specs.LinuxResources) error {
	return hugetlb(w, res, ".limit_in_bytes", ".rsvd.limit_in_bytes")
}

func hugetlbV2(w *writer, res *specs.LinuxResources) error {
	return hugetlb(w, res, ".max", ".rsvd.max")
}

// hugetlb limits use and, where the kernel has it (5.7), reservation: without
// the latter a process over its limit dies of SIGBUS on first touch.
func hugetlb(w *writer, res *specs.LinuxResources, file, reserved string) error {
	for _, l := range res.HugepageLimits {
		value := strconv.FormatUint(l.Limit, 10)
		if err := w.set("hugetlb."+l.Pagesize+file, value); err != nil {
			return err
		}
		if w.has("hugetlb." + l.Pagesize + reserved) {
			if err := w.set("hugetlb."+l.Pagesize+reserved, value); err != nil {
				return err
			}
		}
	}
	return nil
}
