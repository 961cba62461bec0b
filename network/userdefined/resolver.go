package userdefined

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/network/dns"
	"github.com/nodeagent/nodeagent/network/nat"
	"github.com/nodeagent/nodeagent/network/netns"
)

// Resolver is where a member asks for names: an address of its own loopback
// interface, as docker has it.
var Resolver = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// dialLimit bounds the making of a connection to a resolver.
const dialLimit = 2 * time.Second

// resolver answers a member's questions.
type resolver struct {
	server *dns.Server
	pod    *netns.Namespace
}

func (r *resolver) close() {
	r.server.Close()
	r.pod.Close()
}

// serve begins to answer a member that is on a network, unless it is answered
// already. It returns the member with the ports that were taken, which are
// asked for again when the agent was started anew. The caller has the pod's
// lock, and saves what is returned.
func (m *Manager) serve(p *member) (*member, error) {
	m.mu.RLock()
	idle := m.names == nil || m.closed || m.servers[p.PodID] != nil || len(p.Endpoints) == 0
	m.mu.RUnlock()
	if idle {
		return p, nil
	}
	pod, err := netns.Open(p.NetNS)
	if err != nil {
		return p, err
	}
	var udp net.PacketConn
	var tcp net.Listener
	err = pod.Do(func() (err error) {
		udp, tcp, err = listen(p.UDP, p.TCP)
		return err
	})
	if err != nil {
		pod.Close()
		return p, fmt.Errorf("listen for questions of pod %s: %w", p.PodID, err)
	}
	next := p.clone()
	next.UDP, next.TCP = portOf(udp.LocalAddr()), portOf(tcp.Addr())
	r := &resolver{pod: pod, server: dns.Serve(udp, tcp, zone{m, p.PodID}, upstream{m, p.PodID, pod})}
	if err := nat.RedirectDNS(pod.FD(), Resolver, next.UDP, next.TCP); err != nil {
		r.close()
		return p, fmt.Errorf("lead questions of pod %s here: %w", p.PodID, err)
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		r.close()
		return p, nil
	}
	m.servers[p.PodID] = r
	m.mu.Unlock()
	return next, nil
}

// listen opens the sockets inside the calling thread's namespace, at the ports
// wanted if they are free.
func listen(udp, tcp uint16) (net.PacketConn, net.Listener, error) {
	host := Resolver.String()
	packets, err := net.ListenPacket("udp4", fmt.Sprintf("%s:%d", host, udp))
	if err != nil && udp != 0 {
		packets, err = net.ListenPacket("udp4", host+":0")
	}
	if err != nil {
		return nil, nil, err
	}
	streams, err := net.Listen("tcp4", fmt.Sprintf("%s:%d", host, tcp))
	if err != nil && tcp != 0 {
		streams, err = net.Listen("tcp4", host+":0")
	}
	if err != nil {
		packets.Close()
		return nil, nil, err
	}
	return packets, streams, nil
}

func portOf(a net.Addr) uint16 {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return 0
	}
	return at.Port()
}

// serveAgain serves a member that an earlier agent served.
func (m *Manager) serveAgain(podID string) error {
	unlock, err := m.lockPod(context.Background(), podID)
	if err != nil {
		return err
	}
	defer unlock()
	p := m.member(podID)
	if p == nil {
		return nil
	}
	next, err := m.serve(p)
	if err == nil && next != p {
		err = m.save(next)
	}
	return err
}

// stopServing ends a member's server; none is no error.
func (m *Manager) stopServing(podID string) {
	m.mu.Lock()
	r := m.servers[podID]
	delete(m.servers, podID)
	m.mu.Unlock()
	if r != nil {
		r.close()
	}
}

// namesLocked are those of a pod's container, when it runs.
func (m *Manager) namesLocked(podID string) []string {
	if m.names == nil {
		return nil
	}
	return m.names(podID)
}

// zone is what a member's networks know.
type zone struct {
	m   *Manager
	pod string
}

// Addresses gives those of a name on the first of the member's networks that
// knows it; a network's name may stand behind it.
func (z zone) Addresses(name string) ([]netip.Addr, bool) {
	z.m.mu.RLock()
	defer z.m.mu.RUnlock()
	p := z.m.members[z.pod]
	if p == nil {
		return nil, false
	}
	for _, e := range p.Endpoints {
		if e.State != endpointWired {
			continue
		}
		wanted := strings.TrimSuffix(name, "."+strings.ToLower(e.Title))
		if target, ok := e.Links[wanted]; ok {
			wanted = strings.ToLower(target)
		}
		if found := z.m.addressesLocked(e.Network, wanted); len(found) > 0 {
			return found, true
		}
	}
	return nil, false
}

// addressesLocked are those that a network's running members have by a name.
func (m *Manager) addressesLocked(networkID, name string) []netip.Addr {
	var found []netip.Addr
	for _, q := range m.members {
		e := q.endpoint(networkID)
		if e == nil || e.State != endpointWired {
			continue
		}
		names := m.namesLocked(q.PodID)
		if len(names) == 0 {
			continue
		}
		called := slices.Contains(names, name) || slices.ContainsFunc(e.Aliases, func(a string) bool { return strings.EqualFold(a, name) })
		if called {
			found = append(found, addrs(e.Addr4, e.Addr6)...)
		}
	}
	return found
}

// Name gives the name of who has an address, with its network's behind it.
func (z zone) Name(addr netip.Addr) (string, bool) {
	z.m.mu.RLock()
	defer z.m.mu.RUnlock()
	p := z.m.members[z.pod]
	if p == nil {
		return "", false
	}
	for _, e := range p.Endpoints {
		if e.State != endpointWired {
			continue
		}
		for _, q := range z.m.members {
			other := q.endpoint(e.Network)
			if other == nil || other.State != endpointWired || (other.Addr4.Addr() != addr && other.Addr6.Addr() != addr) {
				continue
			}
			if names := z.m.namesLocked(q.PodID); len(names) > 0 {
				return names[0] + "." + e.Title, true
			}
		}
	}
	return "", false
}

// upstream is whom a member's questions are forwarded to: its own servers, from
// inside its namespace, or the node's, from outside.
type upstream struct {
	m   *Manager
	id  string
	pod *netns.Namespace
}

// Servers is empty for a member whose networks lead nowhere: names must not
// become a way out (CVE-2024-29018).
func (u upstream) Servers() []netip.AddrPort {
	p := u.m.member(u.id)
	if p == nil || !u.m.hasOutside(p) {
		return nil
	}
	if len(p.Servers) == 0 {
		return readResolvConf(u.m.cfg.ResolvConf).Servers
	}
	var list []netip.AddrPort
	for _, addr := range p.Servers {
		if addr != Resolver { // who asks here must not be asked again
			list = append(list, netip.AddrPortFrom(addr, dns.Port))
		}
	}
	return list
}

// Dial connects to one of the servers.
func (u upstream) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	dialer := net.Dialer{Timeout: dialLimit}
	p := u.m.member(u.id)
	if p == nil || len(p.Servers) == 0 {
		return dialer.DialContext(ctx, network, address)
	}
	err = u.pod.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
