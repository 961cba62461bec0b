package stream

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	"golang.org/x/net/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// deadline is how long a test waits for what must come.
const deadline = 20 * time.Second

// fakeRuntime runs functions.
type fakeRuntime struct {
	exec    func(context.Context, sandbox.ExecRequest) (int, error)
	attach  func(context.Context, string, sandbox.IO) error
	forward func(context.Context, string, uint16, io.ReadWriteCloser) error
}

func (f *fakeRuntime) Exec(ctx context.Context, req sandbox.ExecRequest) (int, error) {
	return f.exec(ctx, req)
}

func (f *fakeRuntime) Attach(ctx context.Context, id string, streams sandbox.IO) error {
	return f.attach(ctx, id, streams)
}

func (f *fakeRuntime) PortForward(ctx context.Context, id string, port uint16, stream io.ReadWriteCloser) error {
	return f.forward(ctx, id, port, stream)
}

// start serves a runtime until the test ends, and then looks for goroutines
// left behind.
func start(t *testing.T, config Config, runtime *fakeRuntime) *Server {
	t.Helper()
	before := goleak.IgnoreCurrent()
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	config.Log = logrus.NewEntry(logger)
	s := New(config, runtime)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t, before)
	})
	return s
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// eventually fails the test when nothing comes from a channel.
func eventually[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(deadline):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// spdyClient speaks SPDY over a connection it can break.
type spdyClient struct {
	raw  *onceClosed
	conn httpstream.Connection
}

func dialSPDY(t *testing.T, link string, protocol string) *spdyClient {
	t.Helper()
	raw := upgrade(t, link, protocol)
	conn := must[httpstream.Connection](t)(spdy.NewClientConnection(raw))
	t.Cleanup(func() { _ = conn.Close() })
	return &spdyClient{raw: raw, conn: conn}
}

// upgrade asks for SPDY.
func upgrade(t *testing.T, link string, protocol string) *onceClosed {
	t.Helper()
	u := must[*url.URL](t)(url.Parse(link))
	raw := &onceClosed{Conn: must[net.Conn](t)(net.Dial("tcp", u.Host))}
	t.Cleanup(func() { _ = raw.Close() })
	_, err := fmt.Fprintf(raw, "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n%s: %s\r\n\r\n",
		u.Path, u.Host, httpstream.HeaderProtocolVersion, protocol)
	if err != nil {
		t.Fatal(err)
	}
	resp := must[*http.Response](t)(http.ReadResponse(bufio.NewReader(&byteReader{raw}), nil))
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get(httpstream.HeaderProtocolVersion) != protocol {
		t.Fatalf("upgrade: %v %v", resp.Status, resp.Header)
	}
	return raw
}

// onceClosed may be closed again without an error, which spdystream would wait
// a second to tell.
type onceClosed struct {
	net.Conn
	closed atomic.Bool
}

func (c *onceClosed) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.Conn.Close()
}

// byteReader keeps bufio from reading beyond the response's head.
type byteReader struct{ r io.Reader }

func (b *byteReader) Read(p []byte) (int, error) { return b.r.Read(p[:1]) }

func (c *spdyClient) open(t *testing.T, headers ...string) httpstream.Stream {
	t.Helper()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return must[httpstream.Stream](t)(c.conn.CreateStream(h))
}

// stream opens one of a command's streams; it is for the client to read only
// where the command writes.
func (c *spdyClient) stream(t *testing.T, kind string) httpstream.Stream {
	t.Helper()
	return c.open(t, "streamType", kind)
}

// wsClient speaks one of the protocols with channels.
type wsClient struct {
	*websocket.Conn
}

func dialWS(t *testing.T, link string) *wsClient {
	t.Helper()
	return dialProtocol(t, link, "v4.channel.k8s.io")
}

func dialProtocol(t *testing.T, link string, protocol ...string) *wsClient {
	t.Helper()
	config := must[*websocket.Config](t)(websocket.NewConfig("ws"+strings.TrimPrefix(link, "http"), "http://localhost/"))
	config.Protocol = protocol
	conn := must[*websocket.Conn](t)(websocket.DialConfig(config))
	t.Cleanup(func() { _ = conn.Close() })
	return &wsClient{conn}
}

func (c *wsClient) send(t *testing.T, channel byte, text string) {
	t.Helper()
	if err := websocket.Message.Send(c.Conn, append([]byte{channel}, text...)); err != nil {
		t.Fatal(err)
	}
}

// readAll reads to the end what came on each channel.
func (c *wsClient) readAll(t *testing.T) [5]string {
	t.Helper()
	var texts [5]string
	_ = c.SetReadDeadline(time.Now().Add(deadline))
	for {
		var message []byte
		if err := websocket.Message.Receive(c.Conn, &message); err != nil {
			if err != io.EOF {
				t.Error(err)
			}
			return texts
		}
		if len(message) > 0 {
			texts[message[0]] += string(message[1:])
		}
	}
}

// readText reads a stream to its end.
func readText(t *testing.T, r io.Reader) string {
	t.Helper()
	text := make(chan string, 1)
	go func() {
		all, err := io.ReadAll(r)
		if err != nil {
			all = []byte(err.Error())
		}
		text <- string(all)
	}()
	return eventually(t, text, "end of the stream")
}

// outcome is what the error stream tells of a command's end.
type outcome struct {
	Status, Reason, Message string
	Details                 struct {
		Causes []struct{ Reason, Message string }
	}
}

func readOutcome(t *testing.T, text string) outcome {
	t.Helper()
	var o outcome
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return o
}

// exitCode is the code that an outcome tells; empty for success.
func (o outcome) exitCode() string {
	if o.Reason != "NonZeroExitCode" || len(o.Details.Causes) != 1 || o.Details.Causes[0].Reason != "ExitCode" {
		return ""
	}
	return o.Details.Causes[0].Message
}
