package stream

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moby/spdystream/spdy"
	"github.com/nodeagent/nodeagent/sandbox"
)

// rude opens streams without waiting for an answer, and never looks at one.
type rude struct {
	*onceClosed
	framer *spdy.Framer
	next   spdy.StreamId
}

func dialRudely(t *testing.T, link, protocol string) *rude {
	t.Helper()
	raw := upgrade(t, link, protocol)
	return &rude{raw, must[*spdy.Framer](t)(spdy.NewFramer(raw, raw)), 1}
}

func (r *rude) open(t *testing.T, headers ...string) {
	t.Helper()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	if err := r.framer.WriteFrame(&spdy.SynStreamFrame{StreamId: r.next, Headers: h}); err != nil {
		t.Fatal(err)
	}
	r.next += 2
}

// hold is a runtime whose calls last until their client goes.
func hold(begun chan<- struct{}) *fakeRuntime {
	return &fakeRuntime{
		exec: func(ctx context.Context, _ sandbox.ExecRequest) (int, error) {
			begun <- struct{}{}
			<-ctx.Done()
			return 0, ctx.Err()
		},
		forward: func(ctx context.Context, _ string, _ uint16, _ io.ReadWriteCloser) error {
			begun <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		},
	}
}

// A client that opens more streams than it asked for, or opens them as it goes, leaves nothing behind: start looks for
// goroutines.
func TestFurtherStreams(t *testing.T) {
	begun := make(chan struct{}, 1)
	s := start(t, Config{}, hold(begun))
	c := dialRudely(t, must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true})), "v4.channel.k8s.io")
	for i := range 50 {
		c.open(t, "streamType", []string{"stdout", "error", "resize", fmt.Sprint(i)}[i%4])
	}
	eventually(t, begun, "session")
	for range 50 {
		c.open(t, "streamType", "error")
	}
	_ = c.Close()
}

func TestForwardsOfAClientThatGoes(t *testing.T) {
	begun := make(chan struct{}, maxForwards)
	s := start(t, Config{CreationTimeout: deadline}, hold(begun))
	c := dialRudely(t, must[string](t)(s.PortForward("p1", nil)), "portforward.k8s.io")
	for i := range 300 {
		c.open(t, "streamType", []string{"error", "data"}[i%2], "port", "80", "requestID", fmt.Sprint(i/2))
		c.open(t, "streamType", "data", "port", "80", "requestID", fmt.Sprint("lacks its other half ", i))
		c.open(t, "streamType", "other", "port", "80", "requestID", "x")
		c.open(t, "streamType", "data", "port", "0", "requestID", "x")
	}
	eventually(t, begun, "session")
	_ = c.Close()
}

// There are only so many connections in a session; one that ends makes room.
func TestForwardsAreBounded(t *testing.T) {
	s := start(t, Config{CreationTimeout: deadline}, &fakeRuntime{forward: func(context.Context, string, uint16, io.ReadWriteCloser) error { return nil }})
	c := dialSPDY(t, must[string](t)(s.PortForward("p1", nil)), "portforward.k8s.io")
	open := func(kind string, id int) error {
		h := http.Header{}
		h.Set("streamType", kind)
		h.Set("port", "80")
		h.Set("requestID", fmt.Sprint(id))
		_, err := c.conn.CreateStream(h)
		return err
	}
	for i := range maxForwards + 1 {
		if err := open("data", i); (err == nil) != (i < maxForwards) {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	if err := open("error", 0); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); open("data", maxForwards) != nil; runtime.Gosched() {
		if time.Since(began) > deadline {
			t.Fatal("there is never room again")
		}
	}
}

// A connection that lacks a stream is given up, and says so.
func TestForwardLacksAStream(t *testing.T) {
	s := start(t, Config{CreationTimeout: 50 * time.Millisecond}, &fakeRuntime{})
	c := dialSPDY(t, must[string](t)(s.PortForward("p1", nil)), "portforward.k8s.io")
	failure := c.open(t, "streamType", "error", "port", "80", "requestID", "1")
	if text := readText(t, failure); text != "the client did not open both streams" {
		t.Errorf("%q", text)
	}
}

// A size that does not end is not kept until there is no memory: it ends what is read of sizes, and nothing else.
func TestSizeWithoutEnd(t *testing.T) {
	ended := make(chan struct{})
	s := start(t, Config{}, &fakeRuntime{exec: func(_ context.Context, req sandbox.ExecRequest) (int, error) {
		for range req.IO.Resize {
		}
		close(ended)
		_, err := io.Copy(req.IO.Stdout, req.IO.Stdin)
		return 0, err
	}})
	wanted := Wanted{Stdin: true, Stdout: true, TTY: true}
	c := dialSPDY(t, must[string](t)(s.Exec("c1", []string{"sh"}, wanted)), "v4.channel.k8s.io")
	end, in, out, resize := c.stream(t, "error"), c.stream(t, "stdin"), c.stream(t, "stdout"), c.stream(t, "resize")
	if _, err := io.WriteString(resize, `{"Width":`+strings.Repeat(" ", 2*maxSize)); err != nil {
		t.Fatal(err)
	}
	eventually(t, ended, "end of the sizes")
	if _, err := io.WriteString(resize, strings.Repeat(" ", 1<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "text"); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	text := make([]byte, 4)
	if _, err := io.ReadFull(out, text); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	if o := readOutcome(t, readText(t, end)); o.Status != "Success" {
		t.Errorf("%+v", o)
	}
}

// Who has no token can hold so many connections, and no session up.
func TestConnectionsWithoutToken(t *testing.T) {
	begun := make(chan struct{}, 1)
	s := start(t, Config{MaxWaiting: 2}, hold(begun))
	running := upgrade(t, must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true})), "v4.channel.k8s.io")
	c := &rude{running, must[*spdy.Framer](t)(spdy.NewFramer(running, running)), 1}
	c.open(t, "streamType", "error")
	c.open(t, "streamType", "stdout")
	eventually(t, begun, "session")
	connect := func() *net.TCPConn {
		conn := must[net.Conn](t)(net.Dial("tcp", s.address)).(*net.TCPConn)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	first := connect()
	connect()
	third := connect()
	_ = third.SetReadDeadline(time.Now().Add(deadline))
	if n, err := third.Read(make([]byte, 1)); n > 0 || os.IsTimeout(err) {
		t.Errorf("one too many is not sent away: %v", err)
	}
	_ = first.Close()
	link := must[string](t)(s.Attach("c1", Wanted{Stdout: true}))
	for began := time.Now(); ; runtime.Gosched() {
		resp, err := http.Get(link)
		if err == nil {
			_ = resp.Body.Close()
			break
		}
		if time.Since(began) > deadline {
			t.Fatal("there is never room again")
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
