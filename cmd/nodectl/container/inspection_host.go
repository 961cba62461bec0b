package container

import (
	"slices"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

func hostConfigOf(info *nodev1.InspectResponse) hostConfig {
	spec := info.GetSpec()
	net, sec, res := spec.GetNetwork(), spec.GetSecurity(), spec.GetResources()
	h := hostConfig{
		LogConfig: logConfig{Type: "json-file", Config: map[string]string{}}, NetworkMode: net.GetMode(),
		PortBindings: bindings(net.GetPorts()), RestartPolicy: restartPolicy{Name: "no"},
		AutoRemove: spec.GetAutoRemove(), CapAdd: sec.GetCapAdd(), CapDrop: sec.GetCapDrop(), CgroupnsMode: "private",
		DNS: notNil(net.GetDns()), DNSOptions: notNil(net.GetDnsOptions()), DNSSearch: notNil(net.GetDnsSearch()),
		ExtraHosts: net.GetHosts(), IpcMode: "private", OomScoreAdj: res.GetOomScoreAdj(),
		Privileged: sec.GetPrivileged(), PublishAllPorts: net.GetPublishAll(), ReadonlyRootfs: sec.GetReadOnly(),
		SecurityOpt: securityOptions(sec), CPUShares: res.GetCpuShares(), Memory: res.GetMemoryBytes(),
		NanoCPUs: res.GetNanoCpus(), CpusetCpus: res.GetCpusetCpus(), CpusetMems: res.GetCpusetMems(),
		Devices: []device{}, Annotations: spec.GetAnnotations(), MaskedPaths: info.GetMaskedPaths(), ReadonlyPaths: info.GetReadonlyPaths(),
	}
	addModes(&h, spec)
	addLimits(&h, spec)
	for _, group := range spec.GetGroups() {
		h.GroupAdd = append(h.GroupAdd, strconv.FormatInt(group, 10))
	}
	h.GroupAdd = append(h.GroupAdd, spec.GetGroupNames()...)
	for _, d := range spec.GetDevices() {
		h.Devices = append(h.Devices, device{d.GetHostPath(), d.GetContainerPath(), d.GetPermissions()})
	}
	addMounts(&h, spec.GetMounts())
	return h
}

// addModes adds which namespaces are shared, and how the container is run.
func addModes(h *hostConfig, spec *nodev1.ContainerSpec) {
	sec := spec.GetSecurity()
	switch {
	case sec.GetNoShm():
		h.IpcMode = "none"
	case sec.GetShareableIpc():
		h.IpcMode = "shareable"
	case sec.GetHostIpc():
		h.IpcMode = "host"
	case sec.GetIpcContainer() != "":
		h.IpcMode = "container:" + sec.GetIpcContainer()
	}
	switch {
	case sec.GetHostPid():
		h.PidMode = "host"
	case sec.GetPidContainer() != "":
		h.PidMode = "container:" + sec.GetPidContainer()
	}
	h.UsernsMode = sec.GetUserns()
	for _, req := range spec.GetDeviceRequests() {
		h.DeviceRequests = append(h.DeviceRequests, deviceRequest{
			Driver: req.GetDriver(), Count: req.GetCount(), DeviceIDs: req.GetDeviceIds(),
			Capabilities: [][]string{req.GetCapabilities()}, Options: req.GetOptions(),
		})
	}
	if sec.GetHostUts() {
		h.UTSMode = "host"
	}
	if sec.GetHostCgroup() {
		h.CgroupnsMode = "host"
	}
	if p := spec.GetRestart(); p.GetName() != "" {
		h.RestartPolicy = restartPolicy{Name: p.GetName(), MaximumRetryCount: int(p.GetMaxRetries())}
	}
	if l := spec.GetLog(); l.GetDriver() != "" {
		h.LogConfig.Type = l.GetDriver()
	}
	for name, value := range spec.GetLog().GetOptions() {
		h.LogConfig.Config[name] = value
	}
	if spec.GetInit() {
		on := true
		h.Init = &on
	}
	h.VolumesFrom, h.Links, h.CgroupParent, h.Runtime = spec.GetVolumesFrom(), spec.GetLinks(), spec.GetCgroupParent(), "runc"
	h.Sysctls = spec.GetSysctls()
}

// shmBytes is the size of /dev/shm where nobody says otherwise.
const shmBytes = 64 << 20

// addLimits adds the limits.
func addLimits(h *hostConfig, spec *nodev1.ContainerSpec) {
	res := spec.GetResources()
	if limit := res.GetPidsLimit(); limit != 0 {
		h.PidsLimit = &limit
	}
	if h.ShmSize = spec.GetShmBytes(); h.ShmSize == 0 {
		h.ShmSize = shmBytes
	}
	for _, l := range spec.GetUlimits() {
		h.Ulimits = append(h.Ulimits, ulimit{Name: l.GetName(), Hard: l.GetHard(), Soft: l.GetSoft()})
	}
	h.CPUPeriod, h.CPUQuota, h.BlkioWeight = res.GetCpuPeriod(), res.GetCpuQuota(), res.GetBlkioWeight()
	h.CPURealtimePeriod, h.CPURealtimeRuntime = res.GetCpuRtPeriod(), res.GetCpuRtRuntime()
	h.BlkioWeightDevice = []weightDevice{}
	for _, d := range res.GetBlkioWeightDevice() {
		h.BlkioWeightDevice = append(h.BlkioWeightDevice, weightDevice{d.GetPath(), d.GetRate()})
	}
	h.BlkioDeviceReadBps, h.BlkioDeviceWriteBps = throttled(res.GetDeviceReadBps()), throttled(res.GetDeviceWriteBps())
	h.BlkioDeviceReadIOps, h.BlkioDeviceWriteIOps = throttled(res.GetDeviceReadIops()), throttled(res.GetDeviceWriteIops())
	h.OomKillDisable, h.DeviceCgroupRules = res.GetOomKillDisable(), spec.GetDeviceRules()
	h.MemoryReservation, h.MemorySwap, h.MemorySwappiness = res.GetMemoryReservation(), res.GetMemorySwap(), res.MemorySwappiness
}

func throttled(rates []*nodev1.DeviceRate) []throttledDevice {
	out := []throttledDevice{}
	for _, d := range rates {
		out = append(out, throttledDevice{d.GetPath(), d.GetRate()})
	}
	return out
}

// tmpfsText is a tmpfs's options as --tmpfs has them.
func tmpfsText(m *nodev1.Mount) string {
	options := slices.Clone(m.GetOptions())
	if m.GetReadOnly() {
		options = append(options, "ro")
	}
	if m.GetTmpfsSize() > 0 {
		options = append(options, "size="+strconv.FormatInt(m.GetTmpfsSize(), 10))
	}
	if m.GetTmpfsMode() > 0 {
		options = append(options, "mode="+strconv.FormatUint(uint64(m.GetTmpfsMode()), 8))
	}
	return strings.Join(options, ",")
}

// bindText is a bind mount as -v has it.
func bindText(m *nodev1.Mount) string {
	text := m.GetSource() + ":" + m.GetTarget()
	if m.GetReadOnly() {
		text += ":ro"
	}
	return text
}
