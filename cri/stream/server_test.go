package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/sandbox"
	"go.uber.org/goleak"
)

// echo is a command that writes its input twice and ends with a code.
func echo(code int) func(context.Context, sandbox.ExecRequest) (int, error) {
	return func(_ context.Context, req sandbox.ExecRequest) (int, error) {
		var text []byte
		if req.IO.Stdin != nil {
			line := make([]byte, 5)
			if _, err := io.ReadFull(req.IO.Stdin, line); err != nil {
				return 0, err
			}
			text = line
		}
		for _, out := range []io.WriteCloser{req.IO.Stdout, req.IO.Stderr} {
			if out != nil {
				_, _ = fmt.Fprintf(out, "%s %s of %s", req.Cmd, text, req.ContainerID)
				_ = out.Close()
			}
		}
		return code, nil
	}
}

func TestExec(t *testing.T) {
	for _, code := range []int{0, 3} {
		s := start(t, Config{}, &fakeRuntime{exec: echo(code)})
		wanted := Wanted{Stdin: true, Stdout: true, Stderr: true}
		const text = "[a b] hello of c1"

		c := dialSPDY(t, must[string](t)(s.Exec("c1", []string{"a", "b"}, wanted)), "v4.channel.k8s.io")
		end := c.stream(t, "error")
		in, out, stderr := c.stream(t, "stdin"), c.stream(t, "stdout"), c.stream(t, "stderr")
		if _, err := in.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		gotOut, gotErr, gotEnd := readText(t, out), readText(t, stderr), readOutcome(t, readText(t, end))
		if gotOut != text || gotErr != text {
			t.Errorf("SPDY: out %q, err %q", gotOut, gotErr)
		}
		checkOutcome(t, gotEnd, code)

		ws := dialWS(t, must[string](t)(s.Exec("c1", []string{"a", "b"}, wanted)))
		ws.send(t, 0, "hello")
		texts := ws.readAll(t)
		if texts[1] != text || texts[2] != text {
			t.Errorf("WebSocket: %q", texts)
		}
		checkOutcome(t, readOutcome(t, texts[3]), code)
	}
}

func checkOutcome(t *testing.T, o outcome, code int) {
	t.Helper()
	if code == 0 && o.Status != "Success" {
		t.Errorf("got %+v", o)
	}
	if code != 0 && (o.Status != "Failure" || o.exitCode() != fmt.Sprint(code)) {
		t.Errorf("got %+v, want code %d", o, code)
	}
}

func TestExecFails(t *testing.T) {
	s := start(t, Config{}, &fakeRuntime{exec: func(context.Context, sandbox.ExecRequest) (int, error) {
		return 0, errors.New("no such executable: nope")
	}})
	c := dialSPDY(t, must[string](t)(s.Exec("c1", []string{"nope"}, Wanted{Stdout: true})), "v4.channel.k8s.io")
	end, out := c.stream(t, "error"), c.stream(t, "stdout")
	if o := readOutcome(t, readText(t, end)); o.Reason != "InternalError" || !strings.Contains(o.Message, "no such executable: nope") {
		t.Errorf("got %+v", o)
	}
	if text := readText(t, out); text != "" {
		t.Errorf("out %q", text)
	}
}

func TestUnwantedStreamsAreNil(t *testing.T) {
	got := make(chan sandbox.IO, 1)
	s := start(t, Config{}, &fakeRuntime{attach: func(_ context.Context, _ string, streams sandbox.IO) error {
		got <- streams
		return nil
	}})
	// WebSocket has all channels, wanted or not.
	dialWS(t, must[string](t)(s.Attach("c1", Wanted{Stdout: true}))).readAll(t)
	if streams := eventually(t, got, "session"); streams.Stdin != nil || streams.Stdout == nil || streams.Stderr != nil || streams.Resize != nil {
		t.Errorf("got %+v", streams)
	}
	dialWS(t, must[string](t)(s.Attach("c1", Wanted{Stdin: true, Stdout: true, Stderr: true, TTY: true}))).readAll(t)
	if streams := eventually(t, got, "session"); streams.Stdin == nil || streams.Stderr != nil || streams.Resize == nil || !streams.TTY {
		t.Errorf("got %+v", streams)
	}
	c := dialSPDY(t, must[string](t)(s.Attach("c1", Wanted{Stdout: true})), "v4.channel.k8s.io")
	end := c.stream(t, "error")
	c.stream(t, "stdout")
	readText(t, end)
	if streams := eventually(t, got, "session"); streams.Stdin != nil || streams.Stderr != nil {
		t.Errorf("got %+v", streams)
	}
}

func TestResize(t *testing.T) {
	sizes := make(chan sandbox.TerminalSize)
	s := start(t, Config{}, &fakeRuntime{exec: func(ctx context.Context, req sandbox.ExecRequest) (int, error) {
		for range 2 {
			select {
			case sizes <- <-req.IO.Resize:
			case <-ctx.Done():
			}
		}
		return 0, nil
	}})
	wanted := Wanted{Stdin: true, Stdout: true, TTY: true}
	c := dialSPDY(t, must[string](t)(s.Exec("c1", []string{"sh"}, wanted)), "v4.channel.k8s.io")
	end := c.stream(t, "error")
	c.stream(t, "stdin")
	c.stream(t, "stdout")
	resize := c.stream(t, "resize")
	for _, size := range []sandbox.TerminalSize{{Width: 80, Height: 24}, {Width: 132, Height: 50}} {
		if _, err := fmt.Fprintf(resize, `{"Width":%d,"Height":%d}`+"\n", size.Width, size.Height); err != nil {
			t.Fatal(err)
		}
		if got := eventually(t, sizes, "size"); got != size {
			t.Errorf("SPDY: got %v, want %v", got, size)
		}
	}
	readText(t, end)

	ws := dialWS(t, must[string](t)(s.Exec("c1", []string{"sh"}, wanted)))
	for _, size := range []sandbox.TerminalSize{{Width: 80, Height: 24}, {Width: 132, Height: 50}} {
		ws.send(t, 4, fmt.Sprintf(`{"Width":%d,"Height":%d}`, size.Width, size.Height))
		if got := eventually(t, sizes, "size"); got != size {
			t.Errorf("WebSocket: got %v, want %v", got, size)
		}
	}
	ws.readAll(t)
}

func TestReadSizesKeepsTheLast(t *testing.T) {
	text := ""
	for i := range 100 {
		text += fmt.Sprintf(`{"Width":%d,"Height":1}`, i)
	}
	sizes := make(chan sandbox.TerminalSize, 1)
	readSizes(strings.NewReader(text), sizes)
	if last := <-sizes; last.Width != 99 {
		t.Errorf("got %v", last)
	}
	if more, ok := <-sizes; ok {
		t.Errorf("and %v", more)
	}
}

// TestClientGone: a command that neither reads nor writes ends with its client.
func TestClientGone(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error)
	s := start(t, Config{}, &fakeRuntime{
		exec: func(ctx context.Context, _ sandbox.ExecRequest) (int, error) {
			begun <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return 0, ctx.Err()
		},
		forward: func(ctx context.Context, _ string, _ uint16, _ io.ReadWriteCloser) error {
			begun <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		},
	})
	clients := map[string]func(){
		"SPDY": func() {
			c := dialSPDY(t, must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true})), "v4.channel.k8s.io")
			c.stream(t, "error")
			c.stream(t, "stdout")
			eventually(t, begun, "session")
			_ = c.raw.Close()
		},
		"SPDY reset": func() {
			c := dialSPDY(t, must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdin: true})), "v4.channel.k8s.io")
			c.stream(t, "error")
			c.stream(t, "stdin")
			eventually(t, begun, "session")
			_ = c.raw.Conn.(*net.TCPConn).SetLinger(0)
			_ = c.raw.Close()
		},
		"WebSocket": func() {
			ws := dialWS(t, must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true})))
			eventually(t, begun, "session")
			_ = ws.Close()
		},
		"port forward": func() {
			c := dialSPDY(t, must[string](t)(s.PortForward("p1", nil)), "portforward.k8s.io")
			c.open(t, "streamType", "error", "port", "80", "requestID", "0")
			c.open(t, "streamType", "data", "port", "80", "requestID", "0")
			eventually(t, begun, "session")
			_ = c.raw.Close()
		},
	}
	for name, run := range clients {
		run()
		if err := eventually(t, ended, "end of "+name); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStopEndsSessions(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	s := start(t, Config{}, &fakeRuntime{exec: func(ctx context.Context, _ sandbox.ExecRequest) (int, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return 0, ctx.Err()
	}})
	link := must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true}))
	dialWS(t, link)
	eventually(t, begun, "session")
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	default:
		t.Error("Stop did not wait for the session")
	}
	if _, err := s.Exec("c1", []string{"x"}, Wanted{Stdout: true}); !errdefs.IsUnavailable(err) {
		t.Errorf("after Stop: %v", err)
	}
	if err := s.Start(); err == nil {
		t.Error("started again")
	}
}

func TestStopGivesUp(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	s := start(t, Config{}, &fakeRuntime{exec: func(context.Context, sandbox.ExecRequest) (int, error) {
		close(begun)
		<-release
		return 0, nil
	}})
	dialWS(t, must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true})))
	eventually(t, begun, "session")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(release)
}

func TestTokens(t *testing.T) {
	s := start(t, Config{}, &fakeRuntime{exec: echo(0)})
	link := must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true}))
	dialWS(t, link).readAll(t)
	get := func(link string) int {
		resp := must[*http.Response](t)(http.Get(link))
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if code := get(link); code != http.StatusNotFound {
		t.Errorf("used again: %d", code)
	}
	other := must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true}))
	if code := get(strings.Replace(other, "/exec/", "/attach/", 1)); code != http.StatusNotFound {
		t.Errorf("as another kind: %d", code)
	}
	if code := get(other); code != http.StatusNotFound {
		t.Errorf("after another kind: %d", code)
	}
	u := must[*url.URL](t)(url.Parse(link))
	for _, path := range []string{"/", "/exec", "/exec/", "/exec/nope", "/exec/a/b", "/cri/exec/x"} {
		u.Path = path
		if code := get(u.String()); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
	// A request that is no upgrade is refused, and spends its token.
	plain := must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true}))
	if code := get(plain); code != http.StatusBadRequest {
		t.Errorf("plain: %d", code)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestTicketsExpire(t *testing.T) {
	tickets := newTickets(-time.Second)
	token := must[string](t)(tickets.issue(ticket{kind: kindExec}))
	if _, ok := tickets.redeem(kindExec, token); ok {
		t.Error("redeemed after its time")
	}
	for range 3 * maxTickets {
		must[string](t)(tickets.issue(ticket{kind: kindExec}))
	}
	if n := len(tickets.byToken); n > maxTickets {
		t.Errorf("%d expired tickets are kept", n)
	}
	fresh := newTickets(time.Hour)
	for range maxTickets {
		must[string](t)(fresh.issue(ticket{kind: kindExec}))
	}
	if _, err := fresh.issue(ticket{kind: kindExec, id: "c1"}); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "c1") {
		t.Errorf("got %v", err)
	}
}

func TestStreamsThatNeverCome(t *testing.T) {
	s := start(t, Config{CreationTimeout: 50 * time.Millisecond}, &fakeRuntime{exec: echo(0)})
	c := dialSPDY(t, must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true})), "v4.channel.k8s.io")
	closed := make(chan struct{})
	go func() {
		<-c.conn.CloseChan()
		close(closed)
	}()
	eventually(t, closed, "end of the connection")
}

// A client that goes before it opened its streams holds nobody up.
func TestStopWithoutStreams(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := start(t, Config{CreationTimeout: 2 * time.Second}, &fakeRuntime{exec: echo(0)})
	c := dialSPDY(t, must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true})), "v4.channel.k8s.io")
	_ = c.conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
	// It ends by itself; Find waits between looks.
	for began := time.Now(); goleak.Find(before) != nil && time.Since(began) < deadline; {
	}
}

// TestLargeOutput: nothing is lost at the end, however large.
func TestLargeOutput(t *testing.T) {
	for _, size := range []int{1 << 16, 1<<20 - 1, 5<<20 + 1} {
		data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		s := start(t, Config{}, &fakeRuntime{exec: func(_ context.Context, req sandbox.ExecRequest) (int, error) {
			_, err := req.IO.Stdout.Write(data)
			_ = req.IO.Stdout.Close()
			return 0, err
		}})
		c := dialSPDY(t, must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true})), "v4.channel.k8s.io")
		end, out := c.stream(t, "error"), c.stream(t, "stdout")
		text := readText(t, out)
		if sha256.Sum256([]byte(text)) != sha256.Sum256(data) {
			t.Errorf("SPDY: %d of %d bytes", len(text), size)
		}
		if o := readOutcome(t, readText(t, end)); o.Status != "Success" {
			t.Errorf("got %+v", o)
		}
		texts := dialWS(t, must[string](t)(s.Exec("c1", []string{"x"}, Wanted{Stdout: true}))).readAll(t)
		if sha256.Sum256([]byte(texts[1])) != sha256.Sum256(data) {
			t.Errorf("WebSocket: %d of %d bytes", len(texts[1]), size)
		}
	}
}

// forwardTo is a pod whose ports are those of a server on the host.
func forwardTo(address string) func(context.Context, string, uint16, io.ReadWriteCloser) error {
	return func(ctx context.Context, _ string, port uint16, stream io.ReadWriteCloser) error {
		if port == 1 {
			return errors.New("connection refused")
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = io.Copy(conn, stream)
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		_, err = io.Copy(stream, conn)
		_ = stream.Close()
		<-sent
		return err
	}
}

func TestPortForward(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "page %s", r.URL.Path)
	}))
	defer page.Close()
	s := start(t, Config{}, &fakeRuntime{forward: forwardTo(page.Listener.Addr().String())})
	c := dialSPDY(t, must[string](t)(s.PortForward("p1", nil)), "portforward.k8s.io")
	for i := range 5 {
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
	failure := c.open(t, "streamType", "error", "port", "1", "requestID", "9")
	c.open(t, "streamType", "data", "port", "1", "requestID", "9")
	if text := readText(t, failure); !strings.Contains(text, "connection refused") {
		t.Errorf("error %q", text)
	}
	_ = c.conn.Close()

	ws := dialWS(t, must[string](t)(s.PortForward("p1", []int32{80, 1})))
	ws.send(t, 0, "GET /ws HTTP/1.0\r\n\r\n")
	texts := ws.readAll(t)
	// Each channel begins with the port in two bytes.
	if !strings.HasPrefix(texts[0], "P\x00") || !strings.HasSuffix(texts[0], "page /ws") ||
		texts[1] != "P\x00" || !strings.Contains(texts[3], "connection refused") {
		t.Errorf("got %q", texts)
	}
}
