// Package network wires pods: any CNI configuration through libcni, the
// reference plugins in process (network/builtin), and an embedded default
// network when nothing is configured.
//
// Errors are of the kinds of containerd/errdefs: ErrInvalidArgument for a bad
// configuration, ErrUnavailable when no network is ready, ErrAlreadyExists
// for a host port in use.
package network

import (
	"cmp"
	"net/netip"
)

// Protocol is a transport protocol of a port mapping.
type Protocol string

// The protocols of port mappings.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	SCTP Protocol = "sctp"
)

// PortMapping publishes a port of a pod on the host.
type PortMapping struct {
	Protocol      Protocol `json:"protocol"`
	ContainerPort uint16   `json:"containerPort"`
	// HostPort is never zero here: what has no host port is not published.
	HostPort uint16 `json:"hostPort"`
	// HostIP restricts the mapping to one address of the host; the zero
	// Addr means all.
	HostIP netip.Addr `json:"hostIP"`
}

// Attachment is a pod as the network sees it. The same value is given to
// Add, Check and Del.
type Attachment struct {
	// PodID is the sandbox's ID, CNI's container ID.
	PodID string `json:"podID"`
	// NetNS is the path of the pod's pinned network namespace. For Del it
	// may name a file that is gone: everything else is still given back.
	NetNS string `json:"netns"`
	// Name, Namespace and UID are the pod's in Kubernetes.
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	UID       string `json:"uid"`
	// Handler is the runtime handler; empty is the default one.
	Handler string `json:"handler,omitempty"`
	// Ports are published on the host.
	Ports []PortMapping `json:"ports,omitempty"`
	// Annotations are the pod's; bandwidth is read from them.
	Annotations map[string]string `json:"annotations,omitempty"`
	// DNSServers, DNSSearches and DNSOptions are the pod's DNS settings.
	DNSServers  []string `json:"dnsServers,omitempty"`
	DNSSearches []string `json:"dnsSearches,omitempty"`
	DNSOptions  []string `json:"dnsOptions,omitempty"`
	// CgroupParent is handed to plugins that ask for it.
	CgroupParent string `json:"cgroupParent,omitempty"`
	// Membership is nil for a pod on the network that is configured; this
	// package's Manager wires no others.
	Membership *Membership `json:"membership,omitempty"`
	// Interface is the name of the pod's interface on the network that is
	// configured; empty means InterfaceName.
	Interface string `json:"interface,omitempty"`
	// MAC is the hardware address that the pod's interface is to have; empty
	// leaves it to the network.
	MAC string `json:"mac,omitempty"`
	// Addresses are those the pod is to have; empty for any.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Subnets are what the pod's addresses are taken from, one of each, where the
	// network asks to be told; empty for the node's pod CIDRs.
	Subnets []netip.Prefix `json:"subnets,omitempty"`
}

// interfaceName is the name of the pod's interface.
func (a Attachment) interfaceName() string { return cmp.Or(a.Interface, InterfaceName) }

// Result is what a pod got.
type Result struct {
	// Addresses are the pod's, the primary one first; at least one.
	Addresses []netip.Prefix `json:"addresses"`
	// Interface is the pod's main interface, such as "eth0".
	Interface string `json:"interface"`
	// HostInterface is the host's end, such as a veth; may be empty.
	HostInterface string `json:"hostInterface,omitempty"`
	// Gateway is the default route's; the zero Addr when there is none.
	Gateway netip.Addr `json:"gateway"`
	// MAC is the pod interface's hardware address; may be empty.
	MAC string `json:"mac,omitempty"`
	// Network is the name of the configuration that was used.
	Network string `json:"network"`
}
