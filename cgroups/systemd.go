package cgroups

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/systemd"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// unitMaker makes slices through systemd, which owns the tree where it runs:
// what is made behind its back it may remove, and limits that it does not know
// of it sets back. Paths are those of folders,
// "/kubepods.slice/kubepods-pod1.slice". The calls take as long as D-Bus
// does, 30 seconds at most for a job.
type unitMaker interface {
	// create makes a slice and sets no limits; update does.
	create(ctx context.Context, p string, res *specs.LinuxResources) error
	update(ctx context.Context, p string, res *specs.LinuxResources) error
	remove(ctx context.Context, p string) error
}

// expandUnit gives the folder of a slice ("a-b.slice"), of something below one
// ("a-b.slice/c.scope"), or of a scope as libcontainer names it
// ("a-b.slice:prefix:name"); see systemd.slice(5).
func expandUnit(unit string) (string, error) {
	if slice, below, ok := strings.Cut(unit, "/"); ok && !strings.Contains(slice, ":") {
		dir, err := expandUnit(slice)
		return dir + "/" + below, err
	}
	slice, scope, scoped := strings.Cut(unit, ":")
	dir, err := systemd.ExpandSlice(slice)
	if err != nil {
		return "", fmt.Errorf("cgroup path %q: %w: %w", unit, err, errdefs.ErrInvalidArgument)
	}
	if !scoped {
		return dir, nil
	}
	prefix, name, ok := strings.Cut(scope, ":")
	if !ok || name == "" || strings.ContainsAny(scope, "/") || strings.Contains(name, ":") {
		return "", fmt.Errorf("cgroup path %q is not slice:prefix:name: %w", unit, errdefs.ErrInvalidArgument)
	}
	if strings.HasSuffix(name, ".slice") {
		return path.Join(dir, name), nil
	}
	if prefix != "" {
		name = prefix + "-" + name
	}
	return path.Join(dir, name+".scope"), nil
}

// SlicePath gives the folder of a slice, named by its unit
// ("a-b.slice") or by that folder itself ("/a.slice/a-b.slice"), as kubelet
// does. What is neither, and the root's slice, is errdefs.ErrInvalidArgument.
func SlicePath(slice string) (string, error) {
	dir, err := systemd.ExpandSlice(path.Base(slice))
	if err != nil || dir == "/" || path.IsAbs(slice) && dir != slice || !path.IsAbs(slice) && path.Base(slice) != slice {
		return "", fmt.Errorf("%q is not a slice such as a-b.slice: %w", slice, errdefs.ErrInvalidArgument)
	}
	return dir, nil
}

// SliceBelow is the folder of a slice in another, of which the folder is
// given: "/a.slice/a-name.slice" in "/a.slice".
func SliceBelow(dir, name string) string {
	return path.Join(dir, strings.TrimSuffix(path.Base(dir), ".slice")+"-"+name+".slice")
}

// unitManager is the part used of libcontainer's systemd managers.
type unitManager interface {
	Apply(pid int) error
	Set(*oci.Resources) error
	Destroy() error
	GetAllPids() ([]int, error)
}

// systemdUnits makes slices with libcontainer's systemd managers.
type systemdUnits struct {
	open func(*oci.Cgroup) (unitManager, error)
}

func newUnitMaker(mode Mode) unitMaker {
	if mode == V2 {
		return systemdUnits{open: func(c *oci.Cgroup) (unitManager, error) { return systemd.NewUnifiedManager(c, "") }}
	}
	return systemdUnits{open: func(c *oci.Cgroup) (unitManager, error) { return systemd.NewLegacyManager(c, nil) }}
}

// unit describes the slice at p to libcontainer.
func unit(p string, res *specs.LinuxResources) *oci.Cgroup {
	parent := path.Base(path.Dir(p))
	if parent == "/" {
		parent = "-.slice"
	}
	return &oci.Cgroup{Name: path.Base(p), Parent: parent, Systemd: true, Resources: ociResources(res)}
}

func (s systemdUnits) create(ctx context.Context, p string, res *specs.LinuxResources) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m, err := s.open(unit(p, res))
	if err != nil {
		return err
	}
	// Nothing happens if the slice is there: kubelet makes it first.
	return m.Apply(-1)
}

func (s systemdUnits) update(ctx context.Context, p string, res *specs.LinuxResources) error {
	if err := ctx.Err(); err != nil || res == nil {
		return err
	}
	c := unit(p, res)
	m, err := s.open(c)
	if err != nil {
		return err
	}
	return m.Set(c.Resources)
}

// remove stops an empty slice. One with processes is not stopped, for that
// would kill them: they are given until ctx ends to be gone.
func (s systemdUnits) remove(ctx context.Context, p string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m, err := s.open(unit(p, nil))
	if err != nil {
		return err
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		pids, err := m.GetAllPids()
		if err != nil && !gone(err) {
			return err
		}
		if len(pids) == 0 {
			// A unit may be there without its cgroup.
			return m.Destroy()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes are left: %w", len(pids), errdefs.ErrFailedPrecondition)
		case <-ticker.C:
		}
	}
}

// ociResources converts limits for libcontainer. Device rules are left alone.
func ociResources(res *specs.LinuxResources) *oci.Resources {
	out := &oci.Resources{SkipDevices: true, SkipFreezeOnSet: true}
	if res == nil {
		return out
	}
	if m := res.Memory; m != nil {
		out.Memory, out.MemorySwap, out.MemoryReservation = value(m.Limit), value(m.Swap), value(m.Reservation)
		out.MemorySwappiness = m.Swappiness
		out.MemoryCheckBeforeUpdate = true
	}
	if c := res.CPU; c != nil {
		if c.Shares != nil {
			out.CpuShares = *c.Shares
			out.CpuWeight = oci.ConvertCPUSharesToCgroupV2Value(*c.Shares)
		}
		if c.Period != nil {
			out.CpuPeriod = *c.Period
		}
		out.CpuQuota, out.CpuBurst, out.CPUIdle = value(c.Quota), c.Burst, c.Idle
		out.CpusetCpus, out.CpusetMems = c.Cpus, c.Mems
	}
	if res.Pids != nil {
		out.PidsLimit = res.Pids.Limit
	}
	for _, l := range res.HugepageLimits {
		out.HugetlbLimit = append(out.HugetlbLimit, &oci.HugepageLimit{Pagesize: l.Pagesize, Limit: l.Limit})
	}
	if len(res.Unified) > 0 {
		out.Unified = res.Unified
	}
	return out
}
