package nodeapi

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	sandboxspec "github.com/nodeagent/nodeagent/sandbox/spec"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// cpuPeriod is the period of --cpus, in microseconds.
const cpuPeriod = 100000

// configs are what a specification becomes.
type configs struct {
	pod       *runtime.PodSandboxConfig
	container *runtime.ContainerConfig
	extra     *sandboxspec.Extra
}

// buildConfigs turns a specification into CRI's configurations. It settles
// in the specification what was left open, such as the host name, and keeps
// the result in the pod's annotation.
func buildConfigs(m *making) (configs, error) {
	spec := m.spec
	settle(spec, m)
	text, err := protojson.Marshal(spec)
	if err != nil {
		return configs{}, err
	}
	pod := &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: m.name, Namespace: namespace, Uid: m.key},
		Hostname:     spec.GetHostname(),
		LogDirectory: m.server.files.dir(m.key),
		PortMappings: portMappings(m.ports),
		Annotations:  map[string]string{annotationSpec: string(text), annotationKey: m.key},
		Linux: &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{
			NamespaceOptions: m.namespaceOptions(),
			Privileged:       spec.GetSecurity().GetPrivileged(),
		}},
	}
	if shared := m.networking.shared; shared != nil {
		pod.DnsConfig = shared.Config.GetDnsConfig()
	} else if net := spec.GetNetwork(); len(net.GetDns())+len(net.GetDnsSearch())+len(net.GetDnsOptions()) > 0 {
		pod.DnsConfig = &runtime.DNSConfig{
			Servers: net.GetDns(), Searches: net.GetDnsSearch(), Options: net.GetDnsOptions(),
		}
	}
	pod.Linux.Sysctls, pod.Linux.CgroupParent = spec.GetSysctls(), spec.GetCgroupParent()
	container, err := containerConfig(m)
	if err != nil {
		return configs{}, err
	}
	extra, err := m.server.extraOf(spec)
	return configs{pod: pod, container: container, extra: extra}, err
}

// settle fills in what a person left open.
func settle(spec *nodev1.ContainerSpec, m *making) {
	if spec.Hostname == "" {
		spec.Hostname = m.id[:shortID]
		if host, err := os.Hostname(); err == nil && spec.GetNetwork().GetMode() == networkHost {
			spec.Hostname = host
		}
	}
	if !m.server.cgroupV2() {
		spec.Security.HostCgroup = true // v1 has no namespace of ours, and docker's default is the same there
	}
	spec.Network.Ports = nil
	for _, p := range m.ports {
		spec.Network.Ports = append(spec.Network.Ports, p.message())
	}
	spec.Network.Expose = exposedPorts(spec, m.image.Config)
	if m.image.Config != nil {
		labels := map[string]string{}
		for name, value := range m.image.Config.Config.Labels {
			labels[name] = value
		}
		for name, value := range spec.GetLabels() {
			labels[name] = value
		}
		spec.Labels = labels
	}
}

// containerConfig makes the container's configuration.
func containerConfig(m *making) (*runtime.ContainerConfig, error) {
	spec := m.spec
	mounts, err := mountConfigs(m)
	if err != nil {
		return nil, err
	}
	c := &runtime.ContainerConfig{
		Metadata:    &runtime.ContainerMetadata{Name: m.name},
		Image:       &runtime.ImageSpec{Image: m.image.ID, UserSpecifiedImage: spec.GetImage()},
		WorkingDir:  spec.GetWorkingDir(),
		Envs:        environment(spec, m.server.linkEnvironment(m.name, spec)),
		Mounts:      mounts,
		Labels:      spec.GetLabels(),
		Annotations: spec.GetAnnotations(),
		LogPath:     logPath(spec.GetLog()),
		Stdin:       spec.GetStdin(),
		StdinOnce:   spec.GetStdinOnce(),
		Tty:         spec.GetTty(),
		Linux: &runtime.LinuxContainerConfig{
			Resources:       resources(spec.GetResources()),
			SecurityContext: securityContext(m),
		},
	}
	switch {
	case len(spec.GetEntrypoint()) > 0:
		c.Command, c.Args = spec.GetEntrypoint(), spec.GetCommand()
	case spec.GetSetEntrypoint():
		c.Command = spec.GetCommand()
	default:
		c.Args = spec.GetCommand()
	}
	for _, d := range spec.GetDevices() {
		c.Devices = append(c.Devices, &runtime.Device{
			HostPath: d.GetHostPath(), ContainerPath: d.GetContainerPath(), Permissions: d.GetPermissions(),
		})
	}
	for _, name := range spec.GetCdiDevices() {
		c.CDIDevices = append(c.CDIDevices, &runtime.CDIDevice{Name: name})
	}
	if spec.GetStopSignal() != "" {
		c.StopSignal, err = stopSignal(spec.GetStopSignal())
	}
	return c, err
}

// logPath is the name of the log in the container's folder; empty without one.
func logPath(log *nodev1.Log) string {
	if log.GetDriver() == logNone {
		return ""
	}
	return logName
}

// environment is what links and a person add to the image's variables. HOSTNAME
// and TERM, which the image may set, are not for here.
func environment(spec *nodev1.ContainerSpec, links []string) []*runtime.KeyValue {
	var out []*runtime.KeyValue
	at := map[string]int{}
	for _, env := range slices.Concat(links, spec.GetEnv()) {
		name, value, set := strings.Cut(env, "=")
		if !set {
			continue
		}
		if i, ok := at[name]; ok {
			out[i].Value = []byte(value)
			continue
		}
		at[name] = len(out)
		out = append(out, &runtime.KeyValue{Key: name, Value: []byte(value)})
	}
	return out
}

// resources turns limits into CRI's.
func resources(r *nodev1.Resources) *runtime.LinuxContainerResources {
	out := &runtime.LinuxContainerResources{
		CpuShares:          r.GetCpuShares(),
		MemoryLimitInBytes: r.GetMemoryBytes(),
		OomScoreAdj:        r.GetOomScoreAdj(),
		CpusetCpus:         r.GetCpusetCpus(),
		CpusetMems:         r.GetCpusetMems(),
	}
	out.MemorySwapLimitInBytes = r.GetMemorySwap()
	out.CpuPeriod, out.CpuQuota = r.GetCpuPeriod(), r.GetCpuQuota()
	if r.GetNanoCpus() > 0 {
		out.CpuPeriod = cpuPeriod
		out.CpuQuota = r.GetNanoCpus() * cpuPeriod / 1e9
	}
	switch limit := r.GetPidsLimit(); {
	case limit > 0:
		out.Unified = map[string]string{"pids.max": strconv.FormatInt(limit, 10)}
	case limit < 0:
		out.Unified = map[string]string{"pids.max": "max"}
	}
	return out
}

// stopSignal turns "SIGTERM", "term" or "15" into CRI's enumeration.
func stopSignal(name string) (runtime.Signal, error) {
	normal, err := normalSignal(name)
	if err != nil {
		return 0, err
	}
	key := "SIGNAL_" + strings.NewReplacer("+", "PLUS", "-", "MINUS").Replace(normal)
	value, ok := runtime.Signal_value[key]
	if !ok {
		return 0, failf(errdefs.ErrInvalidArgument, "invalid signal: %s", name)
	}
	return runtime.Signal(value), nil
}

// exposedPorts joins the ports of the image, those exposed and those
// published, as port/protocol in order.
func exposedPorts(spec *nodev1.ContainerSpec, image *ocispec.Image) []string {
	all := map[string]bool{}
	if image != nil {
		for p := range image.Config.ExposedPorts {
			all[normalPort(p)] = true
		}
	}
	for _, p := range spec.GetNetwork().GetExpose() {
		all[normalPort(p)] = true
	}
	for _, p := range spec.GetNetwork().GetPorts() {
		all[strconv.Itoa(int(p.GetContainerPort()))+"/"+p.GetProtocol()] = true
	}
	out := make([]string, 0, len(all))
	for p := range all {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// normalPort writes "80" as "80/tcp".
func normalPort(p string) string {
	if strings.Contains(p, "/") {
		return strings.ToLower(p)
	}
	return p + "/tcp"
}
