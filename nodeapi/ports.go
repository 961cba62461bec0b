package nodeapi

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The range host ports are chosen from, as docker does.
const (
	firstChosenPort = 49153
	lastChosenPort  = 65535
)

// publishedPort is a port of the host that leads to one of a container.
type publishedPort struct {
	protocol      runtime.Protocol
	hostPort      uint16
	containerPort uint16
	// hostIP is the zero Addr for all addresses.
	hostIP netip.Addr
}

// clashes says whether two ports cannot be published together.
func (p publishedPort) clashes(q publishedPort) bool {
	return p.protocol == q.protocol && p.hostPort == q.hostPort &&
		(!p.hostIP.IsValid() || !q.hostIP.IsValid() || p.hostIP.IsUnspecified() || q.hostIP.IsUnspecified() || p.hostIP == q.hostIP)
}

// message is the port as the node API has it.
func (p publishedPort) message() *nodev1.Port {
	m := &nodev1.Port{
		ContainerPort: uint32(p.containerPort), HostPort: uint32(p.hostPort),
		Protocol: strings.ToLower(p.protocol.String()),
	}
	if p.hostIP.IsValid() {
		m.HostIp = p.hostIP.String()
	}
	return m
}

// protocol turns a name into CRI's enumeration.
func protocol(name string) (runtime.Protocol, error) {
	if name == "" {
		name = "tcp"
	}
	value, ok := runtime.Protocol_value[strings.ToUpper(name)]
	if !ok {
		return 0, failf(errdefs.ErrInvalidArgument, "invalid proto: %s", name)
	}
	return runtime.Protocol(value), nil
}

// portMappings turns ports into CRI's.
func portMappings(ports []publishedPort) []*runtime.PortMapping {
	var out []*runtime.PortMapping
	for _, p := range ports {
		m := &runtime.PortMapping{
			Protocol: p.protocol, ContainerPort: int32(p.containerPort), HostPort: int32(p.hostPort),
		}
		if p.hostIP.IsValid() {
			m.HostIp = p.hostIP.String()
		}
		out = append(out, m)
	}
	return out
}

// reservePorts takes the host's ports a container publishes, and chooses
// those left open. On the host's network nothing is published. The caller
// gives them back with releasePorts once the pod exists or is not made.
func (s *Server) reservePorts(spec *nodev1.ContainerSpec, image *ocispec.Image) ([]publishedPort, error) {
	if mode := spec.GetNetwork().GetMode(); mode == networkHost || mode == networkNone {
		return nil, nil
	}
	wanted := spec.GetNetwork().GetPorts()
	if spec.GetNetwork().GetPublishAll() {
		wanted = append(wanted, unpublished(spec, image)...)
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.takenPorts()
	var out []publishedPort
	for _, w := range wanted {
		p, err := choosePort(w, taken)
		if err != nil {
			return nil, err
		}
		taken = append(taken, p)
		out = append(out, p)
	}
	for _, p := range out {
		s.ports[p] = true
	}
	return out, nil
}

// releasePorts gives back what reservePorts took.
func (s *Server) releasePorts(ports []publishedPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range ports {
		delete(s.ports, p)
	}
}

// takenPorts are those of all pods, and of containers being made. s.mu is held.
func (s *Server) takenPorts() []publishedPort {
	var taken []publishedPort
	for p := range s.ports {
		taken = append(taken, p)
	}
	for _, pod := range s.sandboxes.Pods() {
		if pod.State == sandbox.PodNotReady {
			continue
		}
		for _, m := range pod.Config.GetPortMappings() {
			if m.GetHostPort() == 0 {
				continue
			}
			p := publishedPort{protocol: m.GetProtocol(), hostPort: uint16(m.GetHostPort()), containerPort: uint16(m.GetContainerPort())}
			p.hostIP, _ = netip.ParseAddr(m.GetHostIp())
			taken = append(taken, p)
		}
	}
	return taken
}

// choosePort checks a port against those taken, or finds a free one.
func choosePort(w *nodev1.Port, taken []publishedPort) (publishedPort, error) {
	p := publishedPort{hostPort: uint16(w.GetHostPort()), containerPort: uint16(w.GetContainerPort())}
	p.hostIP, _ = netip.ParseAddr(w.GetHostIp())
	var err error
	if p.protocol, err = protocol(w.GetProtocol()); err != nil {
		return p, err
	}
	if err := ownAddress(p); err != nil {
		return p, err
	}
	if p.hostPort != 0 {
		for last := uint16(w.GetHostPortLast()); p.hostPort < last && !available(p, taken); {
			p.hostPort++
		}
		if !available(p, taken) {
			ip := "0.0.0.0"
			if p.hostIP.IsValid() {
				ip = p.hostIP.String()
			}
			return p, failf(errdefs.ErrAlreadyExists, "Bind for %s failed: port is already allocated",
				net.JoinHostPort(ip, strconv.Itoa(int(p.hostPort))))
		}
		return p, nil
	}
	span := lastChosenPort - firstChosenPort + 1
	start := rand.IntN(span)
	for i := range span {
		p.hostPort = uint16(firstChosenPort + (start+i)%span)
		if available(p, taken) {
			return p, nil
		}
	}
	return p, failf(errdefs.ErrResourceExhausted, "all ports are allocated")
}

// ownAddress refuses to publish on an address that the host does not have.
func ownAddress(p publishedPort) error {
	if !p.hostIP.IsValid() {
		return nil
	}
	c, err := net.ListenPacket("udp", net.JoinHostPort(p.hostIP.String(), "0"))
	if err == nil {
		_ = c.Close()
	}
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return failf(errdefs.ErrInvalidArgument, "failed to bind host port for %s: cannot assign requested address",
			net.JoinHostPort(p.hostIP.String(), strconv.Itoa(int(p.hostPort))))
	}
	return nil
}

// available says whether nobody has the port, neither a container nor a
// program of the host that listens on it.
func available(p publishedPort, taken []publishedPort) bool {
	for _, t := range taken {
		if p.clashes(t) {
			return false
		}
	}
	host := ""
	if p.hostIP.IsValid() {
		host = p.hostIP.String()
	}
	addr := net.JoinHostPort(host, strconv.Itoa(int(p.hostPort)))
	switch p.protocol {
	case runtime.Protocol_TCP:
		l, err := net.Listen("tcp", addr)
		if err == nil {
			_ = l.Close()
		}
		return err == nil
	case runtime.Protocol_UDP:
		c, err := net.ListenPacket("udp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	return true
}

// unpublished are the exposed ports that are not published yet.
func unpublished(spec *nodev1.ContainerSpec, image *ocispec.Image) []*nodev1.Port {
	published := map[string]bool{}
	for _, p := range spec.GetNetwork().GetPorts() {
		published[strconv.Itoa(int(p.GetContainerPort()))+"/"+p.GetProtocol()] = true
	}
	var out []*nodev1.Port
	for _, text := range exposedPorts(spec, image) {
		p, ok := parsePort(text)
		if ok && !published[text] {
			out = append(out, p)
		}
	}
	return out
}

// parsePort reads "80/tcp". What an image says may be anything.
func parsePort(text string) (*nodev1.Port, bool) {
	number, proto, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return nil, false
	}
	if _, err := protocol(proto); err != nil {
		return nil, false
	}
	return &nodev1.Port{ContainerPort: uint32(n), Protocol: proto}, true
}
