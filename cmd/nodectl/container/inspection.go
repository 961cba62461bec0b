package container

import (
	"net/netip"
	"strconv"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The types below have docker's names, which templates use.
type (
	inspected struct {
		ID              string `json:"Id"`
		Created         string
		Path            string
		Args            []string
		State           state
		Image           string
		ResolvConfPath  string
		HostnamePath    string
		HostsPath       string
		LogPath         string
		Name            string
		RestartCount    int
		Driver          string
		Platform        string
		MountLabel      string
		ProcessLabel    string
		AppArmorProfile string
		ExecIDs         []string
		HostConfig      hostConfig
		GraphDriver     graphDriver
		Mounts          []mountPoint
		Config          containerConfig
		NetworkSettings networkSettings
		// Pod and CgroupPath are not docker's.
		Pod        *pod `json:",omitempty"`
		CgroupPath string
	}
	state struct {
		Status     string
		Running    bool
		Paused     bool
		Restarting bool
		OOMKilled  bool
		Dead       bool
		Pid        int64
		ExitCode   int32
		Error      string
		StartedAt  string
		FinishedAt string
	}
	hostConfig struct {
		Binds           []string
		ContainerIDFile string
		LogConfig       logConfig
		NetworkMode     string
		PortBindings    map[string][]portBinding
		RestartPolicy   restartPolicy
		AutoRemove      bool
		CapAdd          []string
		CapDrop         []string
		CgroupnsMode    string
		DNS             []string `json:"Dns"`
		DNSOptions      []string `json:"DnsOptions"`
		DNSSearch       []string `json:"DnsSearch"`
		ExtraHosts      []string
		GroupAdd        []string
		IpcMode         string
		OomScoreAdj     int64
		PidMode         string
		Privileged      bool
		PublishAllPorts bool
		ReadonlyRootfs  bool
		SecurityOpt     []string
		Tmpfs           map[string]string `json:",omitempty"`
		CPUShares       int64             `json:"CpuShares"`
		Memory          int64
		NanoCPUs        int64 `json:"NanoCpus"`
		CpusetCpus      string
		CpusetMems      string
		Devices         []device
		PidsLimit       *int64
		Annotations     map[string]string `json:",omitempty"`
	}
	logConfig struct {
		Type   string
		Config map[string]string
	}
	restartPolicy struct {
		Name              string
		MaximumRetryCount int
	}
	portBinding struct {
		HostIP   string `json:"HostIp"`
		HostPort string
	}
	device struct {
		PathOnHost        string
		PathInContainer   string
		CgroupPermissions string
	}
	graphDriver struct {
		Data map[string]string
		Name string
	}
	mountPoint struct {
		Type        string
		Source      string
		Destination string
		Mode        string
		RW          bool
		Propagation string
	}
	containerConfig struct {
		Hostname     string
		User         string
		AttachStdin  bool
		AttachStdout bool
		AttachStderr bool
		ExposedPorts map[string]struct{} `json:",omitempty"`
		Tty          bool
		OpenStdin    bool
		StdinOnce    bool
		Env          []string
		Cmd          []string
		Image        string
		Volumes      map[string]struct{}
		WorkingDir   string
		Entrypoint   []string
		Labels       map[string]string
		StopSignal   string `json:",omitempty"`
		StopTimeout  *int   `json:",omitempty"`
	}
	networkSettings struct {
		SandboxID   string
		SandboxKey  string
		Ports       map[string][]portBinding
		Gateway     string
		IPAddress   string
		IPPrefixLen int
		MacAddress  string
		Networks    map[string]endpoint
	}
	endpoint struct {
		NetworkID           string
		EndpointID          string
		Gateway             string
		IPAddress           string
		IPPrefixLen         int
		IPv6Gateway         string
		GlobalIPv6Address   string
		GlobalIPv6PrefixLen int
		MacAddress          string
	}
	pod struct {
		ID        string `json:"Id"`
		Name      string
		Namespace string
		UID       string `json:"Uid"`
	}
)

// inspection turns the agent's answer into docker's form.
func inspection(info *nodev1.InspectResponse) inspected {
	c, spec := info.GetContainer(), info.GetSpec()
	out := inspected{
		ID: c.GetId(), Created: stamp(c.GetCreatedAt()), Args: []string{}, Image: c.GetImageId(), State: stateOf(c),
		HostsPath: info.GetHostsPath(), LogPath: info.GetLogPath(), Name: "/" + c.GetName(),
		Driver: "overlay", Platform: "linux", HostConfig: hostConfigOf(spec), Config: configOf(info),
		GraphDriver:     graphDriver{Name: "overlay", Data: map[string]string{"MergedDir": info.GetRootfs(), "SnapshotKey": info.GetSnapshotKey()}},
		Mounts:          mountPoints(c.GetMounts()),
		NetworkSettings: networkOf(info),
		CgroupPath:      info.GetCgroupPath(),
	}
	if args := c.GetArgs(); len(args) > 0 {
		out.Path, out.Args = args[0], append(out.Args, args[1:]...)
	}
	if p := c.GetPod(); p != nil {
		out.Pod = &pod{ID: p.GetId(), Name: p.GetName(), Namespace: p.GetNamespace(), UID: p.GetUid()}
	}
	return out
}

func stateOf(c *nodev1.Container) state {
	running := c.GetState() == "running" || c.GetState() == "paused"
	return state{
		Status: c.GetState(), Running: running, Paused: c.GetState() == "paused",
		OOMKilled: c.GetReason() == "OOMKilled", Pid: c.GetPid(), ExitCode: c.GetExitCode(), Error: c.GetMessage(),
		StartedAt: stamp(c.GetStartedAt()), FinishedAt: stamp(c.GetFinishedAt()),
	}
}

// stamp is a time as docker writes it; what has not happened is year one.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return "0001-01-01T00:00:00Z"
	}
	return t.AsTime().UTC().Format(time.RFC3339Nano)
}

func hostConfigOf(spec *nodev1.ContainerSpec) hostConfig {
	net, sec, res := spec.GetNetwork(), spec.GetSecurity(), spec.GetResources()
	h := hostConfig{
		LogConfig: logConfig{Type: "cri", Config: map[string]string{}}, NetworkMode: net.GetMode(),
		PortBindings: bindings(net.GetPorts()), RestartPolicy: restartPolicy{Name: "no"},
		AutoRemove: spec.GetAutoRemove(), CapAdd: sec.GetCapAdd(), CapDrop: sec.GetCapDrop(), CgroupnsMode: "private",
		DNS: notNil(net.GetDns()), DNSOptions: notNil(net.GetDnsOptions()), DNSSearch: notNil(net.GetDnsSearch()),
		ExtraHosts: net.GetHosts(), IpcMode: "private", OomScoreAdj: res.GetOomScoreAdj(),
		Privileged: sec.GetPrivileged(), PublishAllPorts: net.GetPublishAll(), ReadonlyRootfs: sec.GetReadOnly(),
		SecurityOpt: securityOptions(sec), CPUShares: res.GetCpuShares(), Memory: res.GetMemoryBytes(),
		NanoCPUs: res.GetNanoCpus(), CpusetCpus: res.GetCpusetCpus(), CpusetMems: res.GetCpusetMems(),
		Devices: []device{}, Annotations: spec.GetAnnotations(),
	}
	if sec.GetHostIpc() {
		h.IpcMode = "host"
	}
	if sec.GetHostPid() {
		h.PidMode = "host"
	}
	if limit := res.GetPidsLimit(); limit > 0 {
		h.PidsLimit = &limit
	}
	for _, group := range spec.GetGroups() {
		h.GroupAdd = append(h.GroupAdd, strconv.FormatInt(group, 10))
	}
	for _, d := range spec.GetDevices() {
		h.Devices = append(h.Devices, device{d.GetHostPath(), d.GetContainerPath(), d.GetPermissions()})
	}
	for _, m := range spec.GetMounts() {
		if m.GetType() == nodev1.Mount_BIND {
			h.Binds = append(h.Binds, bindText(m))
		}
	}
	return h
}

// bindText is a bind mount as -v has it.
func bindText(m *nodev1.Mount) string {
	text := m.GetSource() + ":" + m.GetTarget()
	if m.GetReadOnly() {
		text += ":ro"
	}
	return text
}

func securityOptions(sec *nodev1.Security) []string {
	var out []string
	if sec.GetNoNewPrivileges() {
		out = append(out, "no-new-privileges")
	}
	if sec.GetSeccomp() != "" {
		out = append(out, "seccomp="+sec.GetSeccomp())
	}
	if sec.GetApparmor() != "" {
		out = append(out, "apparmor="+sec.GetApparmor())
	}
	return out
}

// bindings are the published ports by the container's.
func bindings(ports []*nodev1.Port) map[string][]portBinding {
	out := map[string][]portBinding{}
	for _, p := range ports {
		if p.GetHostPort() != 0 {
			out[portName(p)] = append(out[portName(p)], portBinding{HostIP: p.GetHostIp(), HostPort: strconv.Itoa(int(p.GetHostPort()))})
		}
	}
	return out
}

func mountPoints(mounts []*nodev1.Mount) []mountPoint {
	out := []mountPoint{}
	for _, m := range mounts {
		p := mountPoint{
			Type: "bind", Source: m.GetSource(), Destination: m.GetTarget(), RW: !m.GetReadOnly(), Propagation: m.GetPropagation(),
		}
		switch m.GetType() {
		case nodev1.Mount_TMPFS:
			p.Type, p.Source = "tmpfs", ""
		case nodev1.Mount_IMAGE:
			p.Type, p.RW = "image", false
		}
		if p.Type == "bind" && p.Propagation == "" {
			p.Propagation = "rprivate"
		}
		if m.GetReadOnly() {
			p.Mode = "ro"
		}
		out = append(out, p)
	}
	return out
}

func configOf(info *nodev1.InspectResponse) containerConfig {
	c, spec := info.GetContainer(), info.GetSpec()
	out := containerConfig{
		Hostname: spec.GetHostname(), User: spec.GetUser(), AttachStdin: spec.GetStdinOnce(), AttachStdout: true, AttachStderr: true,
		Tty: spec.GetTty(), OpenStdin: spec.GetStdin(), StdinOnce: spec.GetStdinOnce(), Env: info.GetEnv(),
		Cmd: spec.GetCommand(), Image: c.GetImage(), WorkingDir: info.GetWorkingDir(), Entrypoint: spec.GetEntrypoint(),
		Labels: c.GetLabels(), StopSignal: info.GetStopSignal(), ExposedPorts: map[string]struct{}{},
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	if len(out.Cmd) == 0 && len(out.Entrypoint) == 0 {
		// What runs is the image's.
		out.Cmd = c.GetArgs()
	}
	for _, p := range c.GetPorts() {
		out.ExposedPorts[portName(p)] = struct{}{}
	}
	if spec.GetStopTimeout() != nil {
		seconds := int(spec.GetStopTimeout().AsDuration() / time.Second)
		out.StopTimeout = &seconds
	}
	return out
}

func networkOf(info *nodev1.InspectResponse) networkSettings {
	c, a := info.GetContainer(), info.GetAddresses()
	out := networkSettings{
		SandboxID: info.GetPodId(), SandboxKey: a.GetNetns(), Ports: map[string][]portBinding{},
		Networks: map[string]endpoint{},
	}
	e := endpoint{NetworkID: a.GetNetwork(), EndpointID: info.GetPodId()}
	// docker gives addresses back when a container stops, and shows none.
	if c.GetState() == "running" || c.GetState() == "paused" {
		for _, p := range c.GetPorts() {
			name := portName(p)
			switch {
			case p.GetHostPort() != 0:
				out.Ports[name] = append(out.Ports[name], portBinding{HostIP: hostIP(p), HostPort: strconv.Itoa(int(p.GetHostPort()))})
			case out.Ports[name] == nil:
				out.Ports[name] = nil
			}
		}
		e.Gateway, e.MacAddress = a.GetGateway(), a.GetMac()
		for _, text := range a.GetAddresses() {
			prefix, err := netip.ParsePrefix(text)
			switch {
			case err != nil:
			case prefix.Addr().Is4() && e.IPAddress == "":
				e.IPAddress, e.IPPrefixLen = prefix.Addr().String(), prefix.Bits()
			case prefix.Addr().Is6() && e.GlobalIPv6Address == "":
				e.GlobalIPv6Address, e.GlobalIPv6PrefixLen = prefix.Addr().String(), prefix.Bits()
			}
		}
	}
	if c.GetNetworkMode() == "bridge" {
		out.Gateway, out.IPAddress, out.IPPrefixLen, out.MacAddress = e.Gateway, e.IPAddress, e.IPPrefixLen, e.MacAddress
	}
	out.Networks[c.GetNetworkMode()] = e
	return out
}

func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
