package dns

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// ttl is how long an answer of ours holds, in seconds: containers come and go.
const ttl = 5

// maxAnswers bounds the addresses in one answer of ours.
const maxAnswers = 32

// Zone is what a pod's networks know. Names are in lower case, without a dot
// at the end.
type Zone interface {
	// Addresses gives those of a name; false when it is not one of ours.
	Addresses(name string) (addrs []netip.Addr, known bool)
	// Name gives that of an address; false when none of ours has it.
	Name(addr netip.Addr) (name string, known bool)
}

// answerer turns a question into its answer.
type answerer struct {
	zone     Zone
	upstream Upstream
}

// answer is nil for what deserves none.
func (a *answerer) answer(ctx context.Context, raw []byte, tcp bool) []byte {
	packed, query := a.local(raw, tcp)
	if query != nil {
		packed = a.forwarded(ctx, query, tcp)
	}
	return packed
}

// local answers what nobody else is to be asked, which takes no time; else it gives
// the question that is to be forwarded.
func (a *answerer) local(raw []byte, tcp bool) (packed []byte, query *dns.Msg) {
	query = new(dns.Msg)
	if err := query.Unpack(raw); err != nil || query.Response {
		return nil, nil
	}
	if reply := a.reply(query); reply != nil {
		return pack(query, reply, tcp), nil
	}
	return nil, query
}

// forwarded is what the resolvers say.
func (a *answerer) forwarded(ctx context.Context, query *dns.Msg, tcp bool) []byte {
	return pack(query, forward(ctx, a.upstream, query, tcp), tcp)
}

// pack makes an answer of a reply; nil when that cannot be.
func pack(query, reply *dns.Msg, tcp bool) []byte {
	reply.Compress = true
	reply.Truncate(replySize(query, tcp))
	packed, err := reply.Pack()
	if err != nil {
		// What a resolver sent cannot be told on.
		packed, err = failure(query, dns.RcodeServerFailure).Pack()
		if err != nil {
			return nil
		}
	}
	return packed
}

// replySize is how long an answer may be.
func replySize(query *dns.Msg, tcp bool) int {
	if tcp {
		return dns.MaxMsgSize
	}
	if opt := query.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), dns.MinMsgSize), maxQuery)
	}
	return dns.MinMsgSize
}

// reply is nil when the resolvers are to be asked.
func (a *answerer) reply(query *dns.Msg) *dns.Msg {
	switch {
	case query.Opcode != dns.OpcodeQuery:
		return failure(query, dns.RcodeNotImplemented)
	case len(query.Question) != 1:
		return failure(query, dns.RcodeFormatError)
	}
	q := query.Question[0]
	if q.Qclass == dns.ClassINET {
		if records, known := a.own(q); known {
			reply := failure(query, dns.RcodeSuccess)
			reply.Authoritative = true
			reply.Answer = records
			return reply
		}
	}
	return nil
}

// own gives what the networks know: the records asked for, of which there may
// be none, or false when the name is not of theirs.
func (a *answerer) own(q dns.Question) ([]dns.RR, bool) {
	if addr, ok := reverseAddress(q.Name); ok {
		name, known := a.zone.Name(addr)
		if !known || (q.Qtype != dns.TypePTR && q.Qtype != dns.TypeANY) {
			return nil, known
		}
		return []dns.RR{&dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: dns.Fqdn(name)}}, true
	}
	addrs, known := a.zone.Addresses(strings.ToLower(strings.TrimSuffix(q.Name, ".")))
	if !known {
		return nil, false
	}
	var records []dns.RR
	for _, addr := range addrs {
		switch {
		case addr.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
			records = append(records, &dns.A{Hdr: header(q.Name, dns.TypeA), A: addr.AsSlice()})
		case addr.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
			records = append(records, &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA), AAAA: addr.AsSlice()})
		}
	}
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	return records[:min(len(records), maxAnswers)], true
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// failure is an answer without records.
func failure(query *dns.Msg, code int) *dns.Msg {
	reply := new(dns.Msg)
	reply.SetRcode(query, code)
	reply.RecursionAvailable = true
	if len(query.Question) > 1 {
		reply.Question = query.Question[:1]
	}
	if opt := query.IsEdns0(); opt != nil {
		reply.SetEdns0(maxQuery, false)
	}
	return reply
}

// reverseAddress reads "4.3.2.1.in-addr.arpa." and its like of IPv6; false for
// all other names.
func reverseAddress(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if text, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(text, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		addr, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return addr, err == nil
	}
	text, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(text) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := len(text) - 1; i >= 0; i -= 2 {
		if i > 0 && text[i-1] != '.' {
			return netip.Addr{}, false
		}
		b.WriteByte(text[i])
		if n := (len(text) - 1 - i) / 2; n%4 == 3 && n < 31 {
			b.WriteByte(':')
		}
	}
	addr, err := netip.ParseAddr(b.String())
	return addr, err == nil
}
