package dns

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
	"github.com/sirupsen/logrus"
)

const (
	// tryLimit bounds the time for one resolver's answer, so that there is
	// time for the next one's.
	tryLimit = 2 * time.Second
	// maxServers is how many resolvers are asked, as resolv.conf(5) has it.
	maxServers = 3
)

// Upstream is whom questions are forwarded to.
type Upstream interface {
	// Servers are asked one after the other; none when the pod may not know
	// what is outside.
	Servers() []netip.AddrPort
	// Dial connects to one of them over "udp" or "tcp".
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

// forward asks the resolvers, in order, until one knows.
func forward(ctx context.Context, u Upstream, query *dns.Msg, tcp bool) *dns.Msg {
	servers := u.Servers()
	var worst *dns.Msg
	for _, server := range servers[:min(len(servers), maxServers)] {
		reply, err := ask(ctx, u, server, query, tcp)
		if err != nil {
			logrus.WithError(err).WithField("server", server).Debug("forward a question of a pod")
			if ctx.Err() != nil {
				break
			}
			continue
		}
		if reply.Rcode != dns.RcodeServerFailure && reply.Rcode != dns.RcodeRefused {
			return reply
		}
		worst = reply
	}
	if worst != nil {
		return worst
	}
	return failure(query, dns.RcodeServerFailure)
}

// ask asks one resolver, from a port and with an ID that nobody can guess, and
// believes only an answer to the question.
func ask(ctx context.Context, u Upstream, server netip.AddrPort, query *dns.Msg, tcp bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	network := "udp"
	if tcp {
		network = "tcp"
	}
	conn, err := u.Dial(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	asked := query.Copy()
	asked.Id = dns.Id()
	if opt := asked.IsEdns0(); opt != nil {
		opt.SetUDPSize(min(max(opt.UDPSize(), dns.MinMsgSize), maxQuery))
	}
	via := &dns.Conn{Conn: conn, UDPSize: maxQuery}
	if err := via.WriteMsg(asked); err != nil {
		return nil, err
	}
	for {
		reply, err := via.ReadMsg()
		if err != nil {
			return nil, err
		}
		if reply.Id != asked.Id || !reply.Response || !slices.Equal(reply.Question, asked.Question) {
			if tcp {
				return nil, dns.ErrId
			}
			continue // somebody else's
		}
		reply.Id = query.Id
		return reply, nil
	}
}
