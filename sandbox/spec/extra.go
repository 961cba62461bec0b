package spec

import (
	"cmp"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Extra is what a person may ask of a container and CRI has no word for. It
// is recorded as JSON. The zero value asks for nothing.
type Extra struct {
	// Rlimits have names such as "RLIMIT_NOFILE".
	Rlimits []specs.POSIXRlimit `json:",omitempty"`
	// MemoryReservation is in bytes; Swappiness is 0-100.
	MemoryReservation int64   `json:",omitempty"`
	Swappiness        *uint64 `json:",omitempty"`
	OOMKillDisable    bool    `json:",omitempty"`
	// BlockIO has the weights and rates of block devices.
	BlockIO *specs.LinuxBlockIO `json:",omitempty"`
	// RealtimePeriod and RealtimeRuntime are in microseconds.
	RealtimePeriod  uint64 `json:",omitempty"`
	RealtimeRuntime int64  `json:",omitempty"`
	// DeviceRules are added to the cgroup's.
	DeviceRules []specs.LinuxDeviceCgroup `json:",omitempty"`
	// NonRecursive are the container paths of mounts that leave out what is
	// mounted below their source.
	NonRecursive []string `json:",omitempty"`
	// AsMounted are the container paths of binds that keep the flags that their
	// source is mounted with: CRI's lose noexec, and even ro.
	AsMounted []string `json:",omitempty"`
	// Unmasked shows all of /proc and /sys.
	Unmasked bool `json:",omitempty"`
	// HostUTS and HostCgroup share the host's namespaces.
	HostUTS    bool `json:",omitempty"`
	HostCgroup bool `json:",omitempty"`
	// NoShm leaves out /dev/shm; WritableCgroups lets the container change
	// the cgroups below its own.
	NoShm           bool `json:",omitempty"`
	WritableCgroups bool `json:",omitempty"`
	// PIDContainer and IPCContainer are the IDs of containers whose
	// namespaces are joined.
	PIDContainer string `json:",omitempty"`
	IPCContainer string `json:",omitempty"`
	// Unset are variables that are taken out of the environment.
	Unset []string `json:",omitempty"`
	// Groups are further groups, by their names in the image or numbers.
	Groups []string `json:",omitempty"`
}

// extra adds what CRI has no word for.
func (b *builder) extra() error {
	x := b.in.Extra
	if x == nil {
		return nil
	}
	b.spec.Process.Rlimits = append(b.spec.Process.Rlimits, x.Rlimits...)
	res := b.spec.Linux.Resources
	x.Limit(res)
	res.Devices = append(res.Devices, slices.Clone(x.DeviceRules)...)
	b.spec.Process.Env = slices.DeleteFunc(b.spec.Process.Env, func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(x.Unset, name)
	})
	for i, m := range b.spec.Mounts {
		if slices.Contains(x.NonRecursive, m.Destination) {
			b.spec.Mounts[i].Options = slices.Clone(m.Options)
			if at := slices.Index(b.spec.Mounts[i].Options, "rbind"); at >= 0 {
				b.spec.Mounts[i].Options[at] = "bind"
			}
		}
		if slices.Contains(x.AsMounted, m.Destination) {
			b.spec.Mounts[i].Options = slices.DeleteFunc(slices.Clone(b.spec.Mounts[i].Options), func(o string) bool { return o == "rw" })
		}
	}
	return nil
}

// WithLimits is x with the limits that change has; what is zero there stays. Both may be nil, and neither is changed.
func (x *Extra) WithLimits(change *Extra) *Extra {
	if change == nil {
		return x
	}
	out := Extra{}
	if x != nil {
		out = *x
	}
	out.MemoryReservation = cmp.Or(change.MemoryReservation, out.MemoryReservation)
	out.RealtimePeriod = cmp.Or(change.RealtimePeriod, out.RealtimePeriod)
	out.RealtimeRuntime = cmp.Or(change.RealtimeRuntime, out.RealtimeRuntime)
	if change.BlockIO != nil && change.BlockIO.Weight != nil {
		block := specs.LinuxBlockIO{}
		if out.BlockIO != nil {
			block = *out.BlockIO
		}
		block.Weight, out.BlockIO = change.BlockIO.Weight, &block
	}
	return &out
}

// Limit adds the limits to others. A nil x adds none.
func (x *Extra) Limit(res *specs.LinuxResources) {
	if x == nil {
		return
	}
	if x.MemoryReservation != 0 || x.Swappiness != nil || x.OOMKillDisable {
		if res.Memory == nil {
			res.Memory = &specs.LinuxMemory{}
		}
		if x.MemoryReservation != 0 {
			res.Memory.Reservation = pointer(x.MemoryReservation)
		}
		if x.Swappiness != nil {
			res.Memory.Swappiness = pointer(*x.Swappiness)
		}
		if x.OOMKillDisable {
			res.Memory.DisableOOMKiller = pointer(true)
		}
	}
	if x.RealtimePeriod != 0 || x.RealtimeRuntime != 0 {
		if res.CPU == nil {
			res.CPU = &specs.LinuxCPU{}
		}
		if x.RealtimePeriod != 0 {
			res.CPU.RealtimePeriod = pointer(x.RealtimePeriod)
		}
		if x.RealtimeRuntime != 0 {
			res.CPU.RealtimeRuntime = pointer(x.RealtimeRuntime)
		}
	}
	if x.BlockIO != nil {
		block := *x.BlockIO
		res.BlockIO = &block
	}
}
