package container

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/pflag"
)

// limitFlags are the limits that update can change too.
type limitFlags struct {
	memory, reservation, swap, kernelMemory string
	cpus                                    string
	cpuShares, pidsLimit                    int64
	cpuPeriod, cpuQuota                     int64
	realtimePeriod, realtimeRuntime         int64
	cpusetCpus, cpusetMems                  string
	blkioWeight                             uint16

	// The rest is of run and create alone.
	swappiness                                  int64
	oomKillDisable                              bool
	weights, readBPS, writeBPS, readOps, writes []string
}

// add adds the limits that update has.
func (f *limitFlags) add(flags *pflag.FlagSet) {
	flags.StringVarP(&f.memory, "memory", "m", "", "Memory limit")
	flags.StringVar(&f.reservation, "memory-reservation", "", "Memory soft limit")
	flags.StringVar(&f.swap, "memory-swap", "", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	flags.StringVar(&f.kernelMemory, "kernel-memory", "", "Kernel memory limit")
	_ = flags.MarkHidden("kernel-memory") // fails for an unknown flag only
	flags.StringVar(&f.cpus, "cpus", "", "Number of CPUs")
	flags.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	flags.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	flags.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	flags.Int64Var(&f.realtimePeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	flags.Int64Var(&f.realtimeRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	flags.StringVar(&f.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	flags.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	flags.Int64Var(&f.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	flags.Uint16Var(&f.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable")
}

// addLimits adds the limits of run and create.
func (f *createFlags) addLimits(flags *pflag.FlagSet) {
	l := &f.limits
	l.add(flags)
	flags.Int64Var(&l.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	flags.BoolVar(&l.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	flags.Int64Var(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	flags.StringArrayVar(&l.weights, "blkio-weight-device", nil, "Block IO weight (relative device weight)")
	flags.StringArrayVar(&l.readBPS, "device-read-bps", nil, "Limit read rate (bytes per second) from a device")
	flags.StringArrayVar(&l.writeBPS, "device-write-bps", nil, "Limit write rate (bytes per second) to a device")
	flags.StringArrayVar(&l.readOps, "device-read-iops", nil, "Limit read rate (IO per second) from a device")
	flags.StringArrayVar(&l.writes, "device-write-iops", nil, "Limit write rate (IO per second) to a device")
}

func (f *createFlags) fillLimits(spec *nodev1.ContainerSpec) error {
	res, err := f.limits.resources()
	if err != nil {
		return err
	}
	res.OomScoreAdj, res.OomKillDisable = f.oomScoreAdj, f.limits.oomKillDisable
	if f.limits.swappiness != -1 {
		res.MemorySwappiness = &f.limits.swappiness
	}
	for _, list := range []struct {
		texts []string
		flag  string
		to    *[]*nodev1.DeviceRate
		rate  func(string) (uint64, string)
	}{
		{f.limits.weights, "blkio-weight-device", &res.BlkioWeightDevice, weight},
		{f.limits.readBPS, "device-read-bps", &res.DeviceReadBps, byteRate},
		{f.limits.writeBPS, "device-write-bps", &res.DeviceWriteBps, byteRate},
		{f.limits.readOps, "device-read-iops", &res.DeviceReadIops, plainRate},
		{f.limits.writes, "device-write-iops", &res.DeviceWriteIops, plainRate},
	} {
		for _, text := range list.texts {
			rate, err := deviceRate(text, list.rate)
			if err != nil {
				return &command.InvalidValue{Flag: "--" + list.flag, Value: text, Err: err}
			}
			*list.to = append(*list.to, rate)
		}
	}
	spec.Resources = res
	return nil
}

// deviceRate reads DEVICE:VALUE. What is wrong with a value is said before the
// device.
func deviceRate(text string, value func(string) (uint64, string)) (*nodev1.DeviceRate, error) {
	path, number, ok := strings.Cut(text, ":")
	switch {
	case !ok || path == "":
		return nil, fmt.Errorf("bad format: %s", text)
	case !strings.HasPrefix(path, "/dev/"):
		return nil, fmt.Errorf("bad format for device path: %s", text)
	}
	rate, wrong := value(number)
	if wrong != "" {
		return nil, fmt.Errorf(wrong, text)
	}
	return &nodev1.DeviceRate{Path: path, Rate: rate}, nil
}

func weight(text string) (uint64, string) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n > 0 && (n < 10 || n > 1000) {
		return 0, "invalid weight for device: %s"
	}
	return n, ""
}

func plainRate(text string) (uint64, string) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, "invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer"
	}
	return n, ""
}

func byteRate(text string) (uint64, string) {
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 {
		return 0, "invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
	}
	return uint64(n), ""
}

// resources makes limits of the flags; what was not given is zero.
func (f *limitFlags) resources() (*nodev1.Resources, error) {
	res := &nodev1.Resources{
		CpuShares: f.cpuShares, CpusetCpus: f.cpusetCpus, CpusetMems: f.cpusetMems, PidsLimit: f.pidsLimit,
		CpuPeriod: f.cpuPeriod, CpuQuota: f.cpuQuota, CpuRtPeriod: f.realtimePeriod, CpuRtRuntime: f.realtimeRuntime,
		BlkioWeight: uint32(f.blkioWeight),
	}
	var err error
	for _, size := range []struct {
		text, flag string
		to         *int64
	}{
		{f.memory, "-m, --memory", &res.MemoryBytes}, {f.reservation, "--memory-reservation", &res.MemoryReservation},
		{f.swap, "--memory-swap", &res.MemorySwap}, {f.kernelMemory, "--kernel-memory", &res.KernelMemory},
	} {
		switch {
		case size.text == "":
			continue
		case size.text == "-1" && size.to == &res.MemorySwap:
			*size.to = -1
			continue
		}
		if *size.to, err = units.RAMInBytes(size.text); err != nil {
			return nil, &command.InvalidValue{Flag: size.flag, Value: size.text, Err: err}
		}
	}
	if f.cpus != "" {
		if res.NanoCpus, err = parseCPUs(f.cpus); err != nil {
			return nil, &command.InvalidValue{Flag: "--cpus", Value: f.cpus, Err: err}
		}
	}
	return res, nil
}

// parseCPUs reads a decimal number of CPUs as billionths of one.
func parseCPUs(text string) (int64, error) {
	cpus, ok := new(big.Rat).SetString(text)
	if !ok || len(text) > 32 || strings.ContainsAny(text, "eEpP") {
		return 0, fmt.Errorf("failed to parse %s as a rational number", text)
	}
	nano := cpus.Mul(cpus, big.NewRat(1e9, 1))
	if !nano.IsInt() || !nano.Num().IsInt64() {
		return 0, fmt.Errorf("value is too precise")
	}
	return nano.Num().Int64(), nil
}
