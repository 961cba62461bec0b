package nodeapi

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/network/dns"
	"github.com/nodeagent/nodeagent/network/userdefined"
	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The files of a container's network besides its hosts.
const (
	resolvName   = "resolv.conf"
	hostnameName = "hostname"
)

// Where the node's resolvers are told; the second is systemd-resolved's, whose
// own address no container can reach.
const (
	hostResolvConf    = "/etc/resolv.conf"
	systemdResolvConf = "/run/systemd/resolve/resolv.conf"
)

// networkFiles are the files in a container that its network is told by, by
// where they are found in it.
var networkFiles = map[string]string{
	"/etc/hosts": hostsName, "/etc/resolv.conf": resolvName, "/etc/hostname": hostnameName,
}

// networkMounts binds the network's files, but for those that a person put
// others in the place of. A container that shares a network sees the other's.
func networkMounts(m *making, taken map[string]bool) []*runtime.Mount {
	key := m.key
	if m.networking.shared != nil {
		if key = podKey(*m.networking.shared); key == "" {
			return nil // one of kubelet's: the pod's own files do
		}
	}
	var out []*runtime.Mount
	for _, where := range []string{"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"} {
		if !taken[where] {
			out = append(out, &runtime.Mount{
				ContainerPath: where, HostPath: m.server.files.path(key, networkFiles[where]), Readonly: m.spec.GetSecurity().GetReadOnly(),
			})
		}
	}
	return out
}

// writeNetworkFiles writes them, once the container's addresses are known.
func (m *making) writeNetworkFiles(context.Context) error {
	if m.networking.shared != nil {
		return nil
	}
	pod, err := m.server.sandboxes.Pod(m.podID)
	if err != nil {
		return err
	}
	return m.server.refreshNetworkFiles(m.key, pod, m.spec)
}

// refreshNetworkFiles writes the files of a network that is a container's own.
func (s *Server) refreshNetworkFiles(key string, pod sandbox.Pod, spec *nodev1.ContainerSpec) error {
	if strings.HasPrefix(spec.GetNetwork().GetMode(), "container:") {
		return nil
	}
	hosts, err := s.hostsContent(spec, pod)
	if err == nil && !s.onPeople(pod) {
		hosts = s.withLinks(hosts, spec.GetLinks(), nil)
	}
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		hostsName:    hosts,
		resolvName:   resolvConfFor(spec, s.onPeople(pod), hostConf()),
		hostnameName: []byte(spec.GetHostname() + "\n"),
	} {
		if err := os.WriteFile(s.files.path(key, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// onPeople says whether a pod is on a network of people's.
func (s *Server) onPeople(pod sandbox.Pod) bool {
	list, _, _ := s.networks.Endpoints(pod.ID)
	return len(list) > 0
}

// hostConf is the node's resolver configuration as far as containers can use
// it.
func hostConf() dns.ResolvConf {
	conf := readConf(hostResolvConf)
	reachable := func(c dns.ResolvConf) []netip.AddrPort {
		return slices.DeleteFunc(slices.Clone(c.Servers), func(a netip.AddrPort) bool { return a.Addr().IsLoopback() })
	}
	servers := reachable(conf)
	if len(servers) == 0 && len(conf.Servers) > 0 {
		servers = reachable(readConf(systemdResolvConf))
	}
	conf.Servers = servers
	return conf
}

func readConf(path string) dns.ResolvConf {
	data, err := readHosts(path)
	if err != nil {
		return dns.ResolvConf{}
	}
	return dns.ParseResolvConf(data)
}

// resolvConfFor is a container's resolv.conf: on people's networks their own
// server, which asks the others; elsewhere a person's servers or the node's.
func resolvConfFor(spec *nodev1.ContainerSpec, people bool, host dns.ResolvConf) []byte {
	net := spec.GetNetwork()
	var servers []string
	for _, s := range host.Servers {
		servers = append(servers, s.Addr().String())
	}
	searches, options := host.Searches, slices.Clone(host.Options)
	if len(net.GetDns()) > 0 {
		servers = net.GetDns()
	}
	if len(net.GetDnsSearch()) > 0 {
		searches = slices.DeleteFunc(slices.Clone(net.GetDnsSearch()), func(d string) bool { return d == "." })
	}
	if len(net.GetDnsOptions()) > 0 {
		options = slices.Clone(net.GetDnsOptions())
	}
	if people {
		servers = []string{userdefined.Resolver.String()}
		if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
			options = append(options, "ndots:0")
		}
	}
	var b bytes.Buffer
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(searches, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.Bytes()
}

// hostsContent is a container's hosts file.
func (s *Server) hostsContent(spec *nodev1.ContainerSpec, pod sandbox.Pod) ([]byte, error) {
	if spec.GetNetwork().GetMode() == networkHost {
		content, err := readHosts("/etc/hosts")
		return append(content, hostsFile(spec, nil, "127.0.0.1")...), err
	}
	return append([]byte(loopbackHosts), hostsFile(spec, s.podAddresses(pod), s.gatewayOf(pod))...), nil
}

// podAddresses are all that a pod has, those of the first network first.
func (s *Server) podAddresses(pod sandbox.Pod) []netip.Addr {
	var list []netip.Addr
	for _, e := range s.endpoints(pod) {
		for _, text := range []string{e.GetIpv4(), e.GetIpv6()} {
			if p, err := netip.ParsePrefix(text); err == nil {
				list = append(list, p.Addr())
			}
		}
	}
	return list
}

// gatewayOf is the host's address as a pod sees it: that of the bridge of its
// first network that has one.
func (s *Server) gatewayOf(pod sandbox.Pod) string {
	list, _, onNode := s.networks.Endpoints(pod.ID)
	for _, e := range list {
		n, err := s.networks.Find(e.Network)
		if err != nil || n.Driver != userdefined.Bridge || (onNode && pod.Network != nil) {
			continue
		}
		for _, subnet := range n.Subnets {
			return subnet.Gateway.String()
		}
	}
	if pod.Network != nil && pod.Network.Gateway.IsValid() {
		return pod.Network.Gateway.String()
	}
	return "127.0.0.1"
}

// rewriteNetworkFiles brings a container's files in order after it joined or
// left a network. before are the addresses it had. Its own changes to hosts
// stay; resolv.conf is left alone when it is not as it was written. They are
// written in place, for the container has them mounted.
func (s *Server) rewriteNetworkFiles(pod sandbox.Pod, before []netip.Addr, people bool) error {
	spec, key := s.spec(pod), podKey(pod)
	path := s.files.path(key, hostsName)
	content, err := readHosts(path)
	if err != nil {
		return err
	}
	if err := overwrite(path, replaceHosts(content, before, s.podAddresses(pod), hostNames(spec))); err != nil {
		return err
	}
	now := s.onPeople(pod)
	if now == people {
		return nil
	}
	path = s.files.path(key, resolvName)
	content, err = readHosts(path)
	if err != nil || !bytes.Equal(content, resolvConfFor(spec, people, hostConf())) {
		return err
	}
	return overwrite(path, resolvConfFor(spec, now, hostConf()))
}

// replaceHosts takes the lines of addresses that are no more out of a hosts
// file, and adds those that are new.
func replaceHosts(content []byte, before, after []netip.Addr, name string) []byte {
	line := func(addr netip.Addr) string { return addr.String() + "\t" + name + "\n" }
	var b bytes.Buffer
	for l := range bytes.Lines(content) {
		gone := slices.ContainsFunc(before, func(a netip.Addr) bool { return string(l) == line(a) && !slices.Contains(after, a) })
		if !gone {
			b.Write(l)
		}
	}
	for _, addr := range after {
		if !bytes.Contains(b.Bytes(), []byte(line(addr))) {
			b.WriteString(line(addr))
		}
	}
	return b.Bytes()
}

// overwrite writes a file without making another one in its place.
func overwrite(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if failed := f.Close(); err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
