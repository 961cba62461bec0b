package network

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
)

// Annotations that limit a pod's bandwidth, in bits per second, as quantities
// of Kubernetes.
const (
	ingressAnnotation = "kubernetes.io/ingress-bandwidth"
	egressAnnotation  = "kubernetes.io/egress-bandwidth"
)

// Bounds of a pod's bandwidth in bits per second, those of Kubernetes, and the
// burst in bits that goes with it.
const (
	minRate = 1e3
	maxRate = 1e15
	burst   = math.MaxInt32
)

// portArg is a port mapping as the capability portMappings wants it.
type portArg struct {
	HostPort      uint16   `json:"hostPort"`
	ContainerPort uint16   `json:"containerPort"`
	Protocol      Protocol `json:"protocol"`
	HostIP        string   `json:"hostIP,omitempty"`
}

// runtimeConf says to the plugins what they are told of a pod: CNI_ARGS, and
// the capabilities of CNI's conventions, of which libcni hands each plugin
// those it asks for.
func runtimeConf(a Attachment) (*libcni.RuntimeConf, error) {
	capabilities := map[string]any{}
	if len(a.Ports) > 0 {
		var ports []portArg
		for _, port := range a.Ports {
			arg := portArg{HostPort: port.HostPort, ContainerPort: port.ContainerPort, Protocol: port.Protocol}
			if port.HostIP.IsValid() {
				arg.HostIP = port.HostIP.String()
			}
			ports = append(ports, arg)
		}
		capabilities["portMappings"] = ports
	}
	bandwidth, err := bandwidthOf(a.Annotations)
	if err != nil {
		return nil, err
	}
	if len(bandwidth) > 0 {
		capabilities["bandwidth"] = bandwidth
	}
	if len(a.DNSServers)+len(a.DNSSearches)+len(a.DNSOptions) > 0 {
		capabilities["dns"] = map[string][]string{"servers": a.DNSServers, "searches": a.DNSSearches, "options": a.DNSOptions}
	}
	if a.MAC != "" {
		capabilities["mac"] = a.MAC
	}
	if len(a.Addresses) > 0 {
		capabilities["ips"] = a.Addresses
	}
	if len(a.Subnets) > 0 {
		var sets [][]map[string]netip.Prefix
		for _, subnet := range a.Subnets {
			sets = append(sets, []map[string]netip.Prefix{{"subnet": subnet}})
		}
		capabilities["ipRanges"] = sets
	}
	if a.CgroupParent != "" {
		capabilities["cgroupPath"] = a.CgroupParent
	}
	if len(a.Annotations) > 0 {
		capabilities["io.kubernetes.cri.pod-annotations"] = a.Annotations
	}
	return &libcni.RuntimeConf{
		ContainerID: a.PodID,
		NetNS:       a.NetNS,
		IfName:      a.interfaceName(),
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", a.Namespace},
			{"K8S_POD_NAME", a.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", a.PodID},
			{"K8S_POD_UID", a.UID},
		},
		CapabilityArgs: capabilities,
	}, nil
}

// checkArgs refuses what would add arguments of its own to CNI_ARGS, and what is
// no hardware address.
func checkArgs(a Attachment) error {
	for _, value := range []string{a.Name, a.Namespace, a.UID} {
		if strings.ContainsAny(value, ";=\x00\n") {
			return fmt.Errorf("name %q: %w", value, errdefs.ErrInvalidArgument)
		}
	}
	if a.MAC != "" {
		if mac, err := net.ParseMAC(a.MAC); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return fmt.Errorf("hardware address %q: %w", a.MAC, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func bandwidthOf(annotations map[string]string) (map[string]int64, error) {
	limits := map[string]int64{}
	for annotation, direction := range map[string]string{ingressAnnotation: "ingress", egressAnnotation: "egress"} {
		text, ok := annotations[annotation]
		if !ok {
			continue
		}
		rate, err := parseRate(text)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", annotation, err)
		}
		limits[direction+"Rate"], limits[direction+"Burst"] = rate, burst
	}
	return limits, nil
}

// suffixes of quantities.
var suffixes = map[string]float64{
	"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
	"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50,
}

// parseRate reads a quantity of bits per second.
func parseRate(text string) (int64, error) {
	text = strings.TrimSpace(text)
	end := strings.IndexFunc(text, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end < 0 {
		end = len(text)
	}
	factor, ok := suffixes[text[end:]]
	number, err := strconv.ParseFloat(text[:end], 64)
	rate := number * factor
	if err != nil || !ok || rate < minRate || rate > maxRate {
		return 0, fmt.Errorf("bandwidth %q is not a quantity from 1k to 1P: %w", text, errdefs.ErrInvalidArgument)
	}
	return int64(rate), nil
}
