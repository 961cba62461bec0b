package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testZone knows web, with an address of each family, and v4 with one.
type testZone struct{}

func (testZone) Addresses(name string) ([]netip.Addr, bool) {
	switch name {
	case "web":
		return []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}, true
	case "v4":
		return []netip.Addr{netip.MustParseAddr("10.0.0.3")}, true
	case "many":
		var list []netip.Addr
		addr := netip.MustParseAddr("10.1.0.0")
		for range 100 {
			addr = addr.Next()
			list = append(list, addr)
		}
		return list, true
	}
	return nil, false
}

func (testZone) Name(addr netip.Addr) (string, bool) {
	if addr == netip.MustParseAddr("10.0.0.2") || addr == netip.MustParseAddr("fd00::2") {
		return "web.net", true
	}
	return "", false
}

// resolvers are upstream servers, or none.
type resolvers []netip.AddrPort

func (r resolvers) Servers() []netip.AddrPort { return r }

func (resolvers) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}

// resolver serves what handle answers, over UDP and TCP, until the test ends.
func resolver(t testing.TB, handle func(w dns.ResponseWriter, q *dns.Msg)) netip.AddrPort {
	t.Helper()
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	streams, err := net.Listen("tcp4", packets.LocalAddr().String())
	if err != nil {
		packets.Close()
		t.Skip("the port is taken for TCP: ", err)
	}
	var done sync.WaitGroup
	t.Cleanup(done.Wait) // the last one
	for _, s := range []*dns.Server{{PacketConn: packets}, {Listener: streams}} {
		s.Handler = dns.HandlerFunc(handle)
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		done.Go(func() { _ = s.ActivateAndServe() })
		<-ready
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return netip.MustParseAddrPort(packets.LocalAddr().String())
}

// question packs one.
func question(t testing.TB, name string, kind uint16) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), kind)
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// asked gives the answer to a question.
func asked(t *testing.T, a answerer, raw []byte, tcp bool) *dns.Msg {
	t.Helper()
	packed := a.answer(t.Context(), raw, tcp)
	reply := new(dns.Msg)
	if err := reply.Unpack(packed); err != nil {
		t.Fatalf("answer of %d bytes: %v", len(packed), err)
	}
	return reply
}

func TestOwnNames(t *testing.T) {
	a := answerer{testZone{}, resolvers{}}
	for _, test := range []struct {
		name string
		kind uint16
		want string
		code int
	}{
		{"web", dns.TypeA, "10.0.0.2", dns.RcodeSuccess},
		{"WEB.", dns.TypeA, "10.0.0.2", dns.RcodeSuccess},
		{"web", dns.TypeAAAA, "fd00::2", dns.RcodeSuccess},
		{"v4", dns.TypeAAAA, "", dns.RcodeSuccess},
		{"web", dns.TypeMX, "", dns.RcodeSuccess},
		{"2.0.0.10.in-addr.arpa", dns.TypePTR, "web.net.", dns.RcodeSuccess},
		{"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", dns.TypePTR, "web.net.", dns.RcodeSuccess},
		{"2.0.0.10.in-addr.arpa", dns.TypeA, "", dns.RcodeSuccess},
		{"other", dns.TypeA, "", dns.RcodeServerFailure},
		{"9.0.0.10.in-addr.arpa", dns.TypePTR, "", dns.RcodeServerFailure},
	} {
		reply := asked(t, a, question(t, test.name, test.kind), false)
		var got []string
		for _, rr := range reply.Answer {
			text := strings.Fields(rr.String())
			got = append(got, text[len(text)-1])
		}
		if reply.Rcode != test.code || strings.Join(got, " ") != test.want {
			t.Errorf("%s %s: %s %v", test.name, dns.TypeToString[test.kind], dns.RcodeToString[reply.Rcode], got)
		}
	}
}

// An answer fits where it was asked for from, and never holds more than some addresses.
func TestAnswersFit(t *testing.T) {
	a := answerer{testZone{}, resolvers{}}
	raw := question(t, "many", dns.TypeA)
	if packed := a.answer(t.Context(), raw, false); len(packed) > dns.MinMsgSize {
		t.Errorf("%d bytes over UDP", len(packed))
	}
	if reply := asked(t, a, raw, true); len(reply.Answer) != maxAnswers || reply.Truncated {
		t.Errorf("%d addresses over TCP", len(reply.Answer))
	}
}

func TestMalformedQuestions(t *testing.T) {
	a := answerer{testZone{}, resolvers{}}
	for name, raw := range map[string][]byte{"nothing": nil, "short": {1, 2, 3}, "noise": slices.Repeat([]byte{0xc0}, 64)} {
		if got := a.answer(t.Context(), raw, false); got != nil {
			t.Errorf("%s: answered with %d bytes", name, len(got))
		}
	}
	reply := new(dns.Msg)
	reply.SetQuestion("web.", dns.TypeA)
	reply.Response = true
	raw, _ := reply.Pack()
	if a.answer(t.Context(), raw, false) != nil {
		t.Error("an answer is answered: two servers would talk for ever")
	}
	for name, test := range map[string]struct {
		change func(*dns.Msg)
		code   int
	}{
		"update":        {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"two questions": {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError},
		"no question":   {func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError},
	} {
		m := new(dns.Msg)
		m.SetQuestion("web.", dns.TypeA)
		test.change(m)
		raw, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if reply := asked(t, a, raw, false); reply.Rcode != test.code {
			t.Errorf("%s: %s", name, dns.RcodeToString[reply.Rcode])
		}
	}
}

// answerWith answers with an address.
func answerWith(addr string) func(w dns.ResponseWriter, q *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(addr)}}
		_ = w.WriteMsg(m)
	}
}

func TestForward(t *testing.T) {
	good := resolver(t, answerWith("192.0.2.9"))
	broken := resolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
	})
	missing := resolver(t, func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError)) })
	wrong := resolver(t, func(w dns.ResponseWriter, q *dns.Msg) {
		// Somebody who guesses IDs, then the server itself.
		forged := q.Copy()
		forged.Id++
		answerWith("203.0.113.66")(w, forged)
		other := q.Copy()
		other.Question[0].Name = "elsewhere."
		answerWith("203.0.113.66")(w, other)
		answerWith("192.0.2.9")(w, q)
	})
	for name, test := range map[string]struct {
		servers resolvers
		tcp     bool
		code    int
		want    string
	}{
		"one":                    {servers: resolvers{good}, want: "192.0.2.9"},
		"one over TCP":           {servers: resolvers{good}, tcp: true, want: "192.0.2.9"},
		"second":                 {servers: resolvers{broken, good}, want: "192.0.2.9"},
		"name is not there":      {servers: resolvers{missing, good}, code: dns.RcodeNameError},
		"all broken":             {servers: resolvers{broken}, code: dns.RcodeServerFailure},
		"forged answers":         {servers: resolvers{wrong}, want: "192.0.2.9"},
		"nobody there":           {servers: resolvers{netip.MustParseAddrPort("127.0.0.1:1"), good}, want: "192.0.2.9"},
		"none may be asked":      {code: dns.RcodeServerFailure},
		"no more than three are": {servers: resolvers{broken, broken, broken, good}, code: dns.RcodeServerFailure},
	} {
		t.Run(name, func(t *testing.T) {
			raw := question(t, "example.org", dns.TypeA)
			reply := asked(t, answerer{testZone{}, test.servers}, raw, test.tcp)
			got := ""
			if len(reply.Answer) == 1 {
				got = reply.Answer[0].(*dns.A).A.String()
			}
			if reply.Rcode != test.code || got != test.want || raw[0] != byte(reply.Id>>8) || raw[1] != byte(reply.Id) {
				t.Errorf("%s %q", dns.RcodeToString[reply.Rcode], got)
			}
		})
	}
}

// served is a server on the loopback, and how to ask it.
func served(t *testing.T, upstream Upstream) (*Server, func(network string, m *dns.Msg) (*dns.Msg, error)) {
	t.Helper()
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	streams, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(packets, streams, testZone{}, upstream)
	t.Cleanup(s.Close)
	return s, func(network string, m *dns.Msg) (*dns.Msg, error) {
		at := packets.LocalAddr().String()
		if network == "tcp" {
			at = streams.Addr().String()
		}
		reply, _, err := (&dns.Client{Net: network, Timeout: 10 * time.Second}).Exchange(m, at)
		return reply, err
	}
}

func TestServer(t *testing.T) {
	s, ask := served(t, resolvers{})
	for _, network := range []string{"udp", "tcp"} {
		reply, err := ask(network, new(dns.Msg).SetQuestion("web.", dns.TypeA))
		if err != nil || len(reply.Answer) != 1 {
			t.Errorf("%s: %v: %v", network, err, reply)
		}
	}
	// Long questions are not read, and end their connection alone.
	conn, err := net.Dial("tcp", s.tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read %d bytes: %v", n, err)
	}
	if _, err := ask("tcp", new(dns.Msg).SetQuestion("web.", dns.TypeA)); err != nil {
		t.Error(err)
	}
}

// A server whose resolver hangs still knows its own names, and closes at once.
func TestServerWithHangingResolver(t *testing.T) {
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s, ask := served(t, resolvers{netip.MustParseAddrPort(silent.LocalAddr().String())})
	client, err := net.Dial("udp", s.udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// More than there are places, and fewer than the socket has room for.
	for range maxAtOnce + 10 {
		if _, err := client.Write(question(t, "example.org", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		if reply, err := ask(network, new(dns.Msg).SetQuestion("web.", dns.TypeA)); err != nil || len(reply.Answer) != 1 {
			t.Errorf("own name over %s: %v", network, err)
		}
	}
	began := time.Now()
	s.Close()
	if took := time.Since(began); took > tryLimit/2 {
		t.Errorf("closing took %s", took)
	}
}

func TestParseResolvConf(t *testing.T) {
	c := ParseResolvConf([]byte("# x\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver ???\ndomain a\nsearch b c\noptions ndots:1 rotate\nnameserver\n"))
	if len(c.Servers) != 2 || c.Servers[0].String() != "192.0.2.1:53" || !slices.Equal(c.Searches, []string{"b", "c"}) || len(c.Options) != 2 {
		t.Errorf("%+v", c)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"web", "2.0.0.10.in-addr.arpa", "many", "x.y.z"} {
		for _, kind := range []uint16{dns.TypeA, dns.TypePTR, dns.TypeANY} {
			f.Add(question(f, name, kind), false)
		}
	}
	a := answerer{testZone{}, resolvers{}}
	f.Fuzz(func(t *testing.T, raw []byte, tcp bool) {
		packed := a.answer(context.Background(), raw, tcp)
		if packed == nil {
			return
		}
		reply := new(dns.Msg)
		if err := reply.Unpack(packed); err != nil {
			t.Errorf("answer cannot be read: %v", err)
		}
		if !reply.Response || (!tcp && len(packed) > maxQuery) {
			t.Errorf("answer of %d bytes: %v", len(packed), reply)
		}
	})
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 1.2.3.4\nsearch a b\noptions x\n"))
	f.Fuzz(func(_ *testing.T, raw []byte) { ParseResolvConf(raw) })
}
