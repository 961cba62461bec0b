package network

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/network/netns"
)

// patience bounds each exchange of the tests.
const patience = 3 * time.Second

// place is where a test's traffic begins or ends.
type place struct {
	name string
	ns   *netns.Namespace
}

func openPlace(t testing.TB, name, path string) place {
	t.Helper()
	ns, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return place{name, ns}
}

// hostPlace is the tests' host.
func hostPlace(t testing.TB) place {
	t.Helper()
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return place{"host", ns}
}

// serve answers each connection, and each datagram, to a port with the address
// it comes from.
func (p place) serve(t testing.TB, port int) {
	t.Helper()
	var listener net.Listener
	var packets net.PacketConn
	err := p.ns.Do(func() (err error) {
		if listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		packets, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatalf("listen in %s: %v", p.name, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "%s", conn.RemoteAddr())
			conn.Close()
		}
	})
	wg.Go(func() {
		buf := make([]byte, 64)
		for {
			_, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			packets.WriteTo([]byte(from.String()), from)
		}
	})
	t.Cleanup(func() {
		listener.Close()
		packets.Close()
		wg.Wait()
	})
}

// ask talks to an address over "tcp" or "udp" and returns the address the
// answer says it came from.
func (p place) ask(network, address string) (seen netip.Addr, err error) {
	var conn net.Conn
	err = p.ns.Do(func() error {
		var err error
		conn, err = (&net.Dialer{Timeout: patience}).Dial(network, address)
		return err
	})
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return netip.Addr{}, err
	}
	buf := make([]byte, 128)
	if network == "udp" {
		if _, err := conn.Write([]byte("?")); err != nil {
			return netip.Addr{}, err
		}
	}
	n, err := conn.Read(buf)
	if err != nil && err != io.EOF {
		return netip.Addr{}, err
	}
	from, err := netip.ParseAddrPort(strings.TrimSpace(string(buf[:n])))
	return from.Addr().Unmap(), err
}

// mustAsk fails the test when there is no answer.
func (p place) mustAsk(t testing.TB, network, address string) netip.Addr {
	t.Helper()
	seen, err := p.ask(network, address)
	if err != nil {
		t.Errorf("%s to %s %s: %v", p.name, network, address, err)
	}
	return seen
}

// mustNotAsk fails the test when there is an answer.
func (p place) mustNotAsk(t testing.TB, network, address string) {
	t.Helper()
	if seen, err := p.ask(network, address); err == nil {
		t.Errorf("%s to %s %s: answered, to %s", p.name, network, address, seen)
	}
}
