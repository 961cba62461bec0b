package nodeapi

import (
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/sandbox/spec"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ulimitNames are those of --ulimit.
var ulimitNames = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
	"rttime", "sigpending", "stack",
}

// extraOf gathers what a specification asks for and CRI has no word for.
func (s *Server) extraOf(in *nodev1.ContainerSpec) (*spec.Extra, error) {
	res, sec := in.GetResources(), in.GetSecurity()
	x := &spec.Extra{
		MemoryReservation: res.GetMemoryReservation(), OOMKillDisable: res.GetOomKillDisable(),
		RealtimePeriod: uint64(res.GetCpuRtPeriod()), RealtimeRuntime: res.GetCpuRtRuntime(),
		Unmasked: sec.GetUnmasked(), HostUTS: sec.GetHostUts(), HostCgroup: sec.GetHostCgroup(), NoShm: sec.GetNoShm(), WritableCgroups: sec.GetWritableCgroups(), Groups: in.GetGroupNames(),
		Unset: unsetVariables(in.GetEnv()),
	}
	if res.MemorySwappiness != nil && res.GetMemorySwappiness() >= 0 {
		n := uint64(res.GetMemorySwappiness())
		x.Swappiness = &n
	}
	for _, limit := range in.GetUlimits() {
		x.Rlimits = append(x.Rlimits, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(limit.GetName()), Soft: rlimit(limit.GetSoft()), Hard: rlimit(limit.GetHard()),
		})
	}
	for _, m := range in.GetMounts() {
		if m.GetNonRecursive() {
			x.NonRecursive = append(x.NonRecursive, m.GetTarget())
		}
		if !m.GetReadOnly() {
			x.AsMounted = append(x.AsMounted, path.Clean(m.GetTarget()))
		}
	}
	var err error
	if x.DeviceRules, err = deviceRules(in.GetDeviceRules()); err != nil {
		return nil, err
	}
	if x.BlockIO, err = blockIO(res); err != nil {
		return nil, err
	}
	for _, join := range []struct {
		name string
		to   *string
	}{{sec.GetPidContainer(), &x.PIDContainer}, {sec.GetIpcContainer(), &x.IPCContainer}} {
		if join.name == "" {
			continue
		}
		c, err := s.find(join.name)
		if err != nil {
			return nil, err
		}
		if join.to == &x.IPCContainer {
			if err := s.checkShareable(c); err != nil {
				return nil, err
			}
		}
		*join.to = c.ID
	}
	return x, nil
}

// checkShareable refuses to join the IPC namespace of a container that does not
// offer it. Kubelet's share theirs with their pods anyway.
func (s *Server) checkShareable(c sandbox.Container) error {
	sec := s.specOf(c).GetSecurity()
	if c.Owner != sandbox.OwnerNodectl || sec.GetHostIpc() || sec.GetShareableIpc() || sec.GetIpcContainer() != "" {
		return nil
	}
	return failf(errdefs.ErrInvalidArgument,
		"cannot join IPC namespace of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", c.ID)
}

// unsetVariables are those that are named last without a value.
func unsetVariables(env []string) []string {
	var names []string
	for _, entry := range env {
		name, _, set := strings.Cut(entry, "=")
		names = slices.DeleteFunc(names, func(n string) bool { return n == name })
		if !set {
			names = append(names, name)
		}
	}
	return names
}

// rlimit is a limit as the kernel has it: -1 is none.
func rlimit(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64
	}
	return uint64(n)
}

// validateExtra refuses what cannot be right of limits.
func validateExtra(in *nodev1.ContainerSpec) error {
	for _, limit := range in.GetUlimits() {
		switch {
		case !slices.Contains(ulimitNames, limit.GetName()):
			return failf(errdefs.ErrInvalidArgument, "invalid ulimit type: %s", limit.GetName())
		case limit.GetHard() >= 0 && (limit.GetSoft() < 0 || limit.GetSoft() > limit.GetHard()):
			return failf(errdefs.ErrInvalidArgument, "ulimit soft limit must be less than or equal to hard limit: %d > %d", limit.GetSoft(), limit.GetHard())
		}
	}
	res := in.GetResources()
	switch n := res.GetMemorySwappiness(); {
	case n < -1 || n > 100:
		return failf(errdefs.ErrInvalidArgument, "invalid value: %d, valid memory swappiness range is 0-100", n)
	case res.GetMemoryReservation() != 0 && res.GetMemoryReservation() < minMemory:
		return failf(errdefs.ErrInvalidArgument, "Minimum memory reservation allowed is 6MB")
	case res.GetMemoryBytes() > 0 && res.GetMemoryReservation() > res.GetMemoryBytes():
		return failf(errdefs.ErrInvalidArgument, "Minimum memory limit can not be less than memory reservation limit, see usage")
	case res.GetMemorySwap() > 0 && res.GetMemoryBytes() == 0:
		return failf(errdefs.ErrInvalidArgument, "You should always set the Memory limit when using Memoryswap limit, see usage")
	case res.GetMemorySwap() > 0 && res.GetMemorySwap() < res.GetMemoryBytes():
		return failf(errdefs.ErrInvalidArgument, "Minimum memoryswap limit should be larger than memory limit, see usage")
	case res.GetBlkioWeight() > 0 && (res.GetBlkioWeight() < 10 || res.GetBlkioWeight() > 1000):
		return failf(errdefs.ErrInvalidArgument, "Range of blkio weight is from 10 to 1000")
	case in.GetShmBytes() < 0:
		return failf(errdefs.ErrInvalidArgument, "SHM size can not be less than 0")
	}
	if err := validateBandwidth(res); err != nil {
		return err
	}
	_, err := deviceRules(in.GetDeviceRules())
	return err
}

// validateBandwidth refuses what the scheduler cannot do.
func validateBandwidth(res *nodev1.Resources) error {
	period, quota := res.GetCpuPeriod(), res.GetCpuQuota()
	switch {
	case res.GetNanoCpus() > 0 && period > 0:
		return failf(errdefs.ErrInvalidArgument, "Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case res.GetNanoCpus() > 0 && quota > 0:
		return failf(errdefs.ErrInvalidArgument, "Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case period != 0 && (period < 1000 || period > 1000000):
		return failf(errdefs.ErrInvalidArgument, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case quota > 0 && quota < 1000:
		return failf(errdefs.ErrInvalidArgument, "CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	return nil
}

// deviceRules reads rules such as "c 1:3 rwm" and "b *:* r".
func deviceRules(texts []string) ([]specs.LinuxDeviceCgroup, error) {
	var out []specs.LinuxDeviceCgroup
	for _, text := range texts {
		rule, ok := deviceRule(text)
		if !ok {
			return nil, failf(errdefs.ErrInvalidArgument, "invalid device cgroup rule format: '%s'", text)
		}
		out = append(out, rule)
	}
	return out, nil
}

func deviceRule(text string) (rule specs.LinuxDeviceCgroup, ok bool) {
	fields := strings.Fields(text)
	if len(fields) != 3 || !slices.Contains([]string{"a", "b", "c"}, fields[0]) || strings.Trim(fields[2], "rwm") != "" {
		return rule, false
	}
	major, minor, both := strings.Cut(fields[1], ":")
	rule = specs.LinuxDeviceCgroup{Allow: true, Type: fields[0], Access: fields[2]}
	if !both || !deviceNumber(major, &rule.Major) || !deviceNumber(minor, &rule.Minor) {
		return rule, false
	}
	return rule, true
}

// deviceNumber reads a number, or "*" for all.
func deviceNumber(text string, to **int64) bool {
	if text == "*" {
		return true
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return false
	}
	*to = &n
	return true
}

// blockIO makes the limits of block devices; nil when there are none.
func blockIO(res *nodev1.Resources) (*specs.LinuxBlockIO, error) {
	out := &specs.LinuxBlockIO{}
	any := false
	if res.GetBlkioWeight() > 0 {
		weight := uint16(res.GetBlkioWeight())
		out.Weight, any = &weight, true
	}
	for _, d := range res.GetBlkioWeightDevice() {
		major, minor, err := blockDevice(d.GetPath())
		if err != nil {
			return nil, err
		}
		weight := uint16(d.GetRate())
		w := specs.LinuxWeightDevice{Weight: &weight}
		w.Major, w.Minor = major, minor
		out.WeightDevice, any = append(out.WeightDevice, w), true
	}
	for _, list := range []struct {
		from []*nodev1.DeviceRate
		to   *[]specs.LinuxThrottleDevice
	}{
		{res.GetDeviceReadBps(), &out.ThrottleReadBpsDevice}, {res.GetDeviceWriteBps(), &out.ThrottleWriteBpsDevice},
		{res.GetDeviceReadIops(), &out.ThrottleReadIOPSDevice}, {res.GetDeviceWriteIops(), &out.ThrottleWriteIOPSDevice},
	} {
		for _, d := range list.from {
			major, minor, err := blockDevice(d.GetPath())
			if err != nil {
				return nil, err
			}
			t := specs.LinuxThrottleDevice{Rate: d.GetRate()}
			t.Major, t.Minor = major, minor
			*list.to, any = append(*list.to, t), true
		}
	}
	if !any {
		return nil, nil
	}
	return out, nil
}

// blockDevice finds the numbers of a block device of the host.
func blockDevice(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, failf(errdefs.ErrInvalidArgument, "%s: %v", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, failf(errdefs.ErrInvalidArgument, "%s is not a block device", path)
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}
