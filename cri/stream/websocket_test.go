package stream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/sandbox"
	"golang.org/x/net/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// In version 5 a client ends its input, and only that.
func TestExecV5(t *testing.T) {
	untilEnd := func(_ context.Context, req sandbox.ExecRequest) (int, error) {
		text, err := io.ReadAll(req.IO.Stdin)
		if err != nil {
			return 0, err
		}
		_, _ = fmt.Fprintf(req.IO.Stdout, "%s %s", req.Cmd, text)
		_, _ = io.WriteString(req.IO.Stderr, "error")
		return len(text), nil
	}
	s := start(t, Config{}, &fakeRuntime{exec: untilEnd})
	for _, text := range []string{"", "hello"} {
		link := must[string](t)(s.Exec("c1", []string{"a", "b"}, Wanted{Stdin: true, Stdout: true, Stderr: true}))
		ws := dialProtocol(t, link, "v9.channel.k8s.io", v5Protocol, "v4.channel.k8s.io")
		if got := ws.Config().Protocol; len(got) != 1 || got[0] != v5Protocol {
			t.Errorf("protocol %v", got)
		}
		ws.send(t, stdinChannel, text)
		ws.send(t, 255, string([]byte{stdinChannel}))
		texts := ws.readAll(t)
		if texts[stdoutChannel] != "[a b] "+text || texts[stderrChannel] != "error" {
			t.Errorf("%q", texts)
		}
		checkOutcome(t, readOutcome(t, texts[errorChannel]), len(text))
	}
}

func TestExecV5Fails(t *testing.T) {
	s := start(t, Config{}, &fakeRuntime{exec: func(context.Context, sandbox.ExecRequest) (int, error) { return 0, io.ErrClosedPipe }})
	ws := dialProtocol(t, must[string](t)(s.Exec("c1", []string{"a"}, Wanted{Stdout: true})), v5Protocol)
	o := readOutcome(t, ws.readAll(t)[errorChannel])
	if o.Status != "Failure" || o.Reason != "InternalError" || !strings.Contains(o.Message, "closed pipe") {
		t.Errorf("%+v", o)
	}
}

// Sizes reach a terminal; what is no size ends them and nothing else.
func TestAttachV5(t *testing.T) {
	sizes := make(chan sandbox.TerminalSize, 1)
	s := start(t, Config{}, &fakeRuntime{attach: func(_ context.Context, id string, streams sandbox.IO) error {
		for size := range streams.Resize {
			sizes <- size
		}
		text, _ := io.ReadAll(streams.Stdin)
		_, _ = fmt.Fprintf(streams.Stdout, "%s %s", id, text)
		return nil
	}})
	ws := dialProtocol(t, must[string](t)(s.Attach("c1", Wanted{Stdin: true, Stdout: true, TTY: true})), v5Protocol)
	ws.send(t, resizeChannel, `{"Width":80,"Height":24}`)
	if got := eventually(t, sizes, "size"); got != (sandbox.TerminalSize{Width: 80, Height: 24}) {
		t.Errorf("%+v", got)
	}
	ws.send(t, resizeChannel, "no size")
	ws.send(t, resizeChannel, "nor this")
	ws.send(t, stdinChannel, "text")
	ws.send(t, 255, string([]byte{stdinChannel}))
	texts := ws.readAll(t)
	if texts[stdoutChannel] != "c1 text" || readOutcome(t, texts[errorChannel]).Status != "Success" {
		t.Errorf("%q", texts)
	}
}

// A client that goes away ends the command.
func TestClientOfV5Gone(t *testing.T) {
	began, ended := make(chan error, 1), make(chan error, 1)
	s := start(t, Config{}, &fakeRuntime{exec: func(ctx context.Context, _ sandbox.ExecRequest) (int, error) {
		began <- nil
		<-ctx.Done()
		ended <- ctx.Err()
		return 0, ctx.Err()
	}})
	ws := dialProtocol(t, must[string](t)(s.Exec("c1", []string{"a"}, Wanted{Stdin: true, Stdout: true})), v5Protocol)
	// One that is gone before has no command to end.
	eventually(t, began, "beginning of the command")
	_ = ws.Close()
	eventually(t, ended, "end of the command")
}

// SPDY inside of WebSocket forwards ports as SPDY alone does.
func TestTunneledPortForward(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "page %s", r.URL.Path)
	}))
	defer page.Close()
	s := start(t, Config{}, &fakeRuntime{forward: forwardTo(page.Listener.Addr().String())})
	ws := dialProtocol(t, must[string](t)(s.PortForward("p1", nil)), tunnelProtocol)
	ws.PayloadType = websocket.BinaryFrame
	c := &spdyClient{conn: must[httpstream.Connection](t)(spdy.NewClientConnection(&tunnelConn{Conn: ws.Conn}))}
	t.Cleanup(func() { _ = c.conn.Close() })
	for i := range 3 {
		id := fmt.Sprint(i)
		failure := c.open(t, "streamType", "error", "port", "80", "requestID", id)
		data := c.open(t, "streamType", "data", "port", "80", "requestID", id)
		if _, err := fmt.Fprintf(data, "GET /%s HTTP/1.0\r\n\r\n", id); err != nil {
			t.Fatal(err)
		}
		_ = data.Close()
		if text := readText(t, data); !strings.HasSuffix(text, "page /"+id) {
			t.Errorf("got %q", text)
		}
		if text := readText(t, failure); text != "" {
			t.Errorf("error %q", text)
		}
	}
}
