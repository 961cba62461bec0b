package cve

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// execURL asks for the URL of an exec.
func (n *node) execURL(id string, tty bool, command ...string) string {
	n.t.Helper()
	ctx, cancel := n.Context()
	defer cancel()
	answer, err := n.Runtime().Exec(ctx, &runtimeapi.ExecRequest{ContainerId: id, Cmd: command, Tty: tty, Stdin: tty, Stdout: true, Stderr: !tty})
	n.Must("exec", err)
	return answer.Url
}

// dial opens a WebSocket; its connection is returned too, to be broken.
func (n *node) dial(link string) (*websocket.Conn, *net.TCPConn) {
	n.t.Helper()
	config, err := websocket.NewConfig("ws"+strings.TrimPrefix(link, "http"), "http://localhost/")
	n.Must("read URL", err)
	config.Protocol = []string{"v4.channel.k8s.io"}
	conn, err := net.Dial("tcp", config.Location.Host)
	n.Must("connect", err)
	socket, err := websocket.NewClient(config, conn)
	n.Must("open WebSocket", err)
	return socket, conn.(*net.TCPConn)
}

// reset breaks a connection as a client that crashes does.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// streamed runs a command over a WebSocket and returns its output.
func (n *node) streamed(id string, tty bool, command ...string) string {
	n.t.Helper()
	socket, _ := n.dial(n.execURL(id, tty, command...))
	defer socket.Close()
	n.Must("set deadline", socket.SetDeadline(time.Now().Add(eventLimit)))
	var out strings.Builder
	for {
		var message []byte
		err := websocket.Message.Receive(socket, &message)
		if errors.Is(err, io.EOF) {
			return out.String()
		}
		n.Must("read", err)
		if len(message) > 0 && message[0] == 1 {
			out.Write(message[1:])
		}
	}
}

// upgrade asks for SPDY.
func (n *node) upgrade(link string) *net.TCPConn {
	n.t.Helper()
	u, err := url.Parse(link)
	n.Must("read URL", err)
	conn, err := net.Dial("tcp", u.Host)
	n.Must("connect", err)
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n", u.Path, u.Host)
	n.Must("ask", err)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	n.Must("read answer", err)
	if answer.StatusCode != http.StatusSwitchingProtocols {
		n.t.Errorf("status %s", answer.Status)
	}
	return conn.(*net.TCPConn)
}

// spdy begins an exec over SPDY and breaks the connection in the midst of it.
func (n *node) spdy(link string) {
	n.t.Helper()
	conn := &onceClosed{TCPConn: n.upgrade(link)}
	defer conn.Close()
	session, err := spdy.NewClientConnection(conn)
	n.Must("begin SPDY", err)
	for _, kind := range []string{"error", "stdin", "stdout", "resize"} {
		_, err := session.CreateStream(http.Header{"Streamtype": []string{kind}})
		n.Must("open stream", err)
	}
	_ = session.Close()
}

// onceClosed is reset when it is closed, and may be closed again without an error, which spdystream would take a while
// to tell.
type onceClosed struct {
	*net.TCPConn
	once sync.Once
}

func (c *onceClosed) Close() error {
	c.once.Do(func() { reset(c.TCPConn) })
	return nil
}

// CVE-2022-23471, CVE-2025-64329: sessions that leave goroutines and descriptors behind, when a client breaks off, when
// nothing can be executed, when nobody reads.
func TestCVE202223471SessionsLeaveNothing(t *testing.T) {
	n := newNode(t)
	quiet := idle("quiet")
	quiet.Stdin = true
	terminal := idle("terminal")
	terminal.Tty, terminal.Stdin = true, true
	id, _ := n.running(quiet)
	tty, _ := n.running(terminal)
	n.sessions(id, tty, 10)
	supervisor := n.Supervisor()
	agentFiles, supervisorFiles := descriptors(t, n.Pid()), descriptors(t, supervisor)
	n.sessions(id, tty, 190)
	testenv.Eventually(t, eventLimit, "descriptors are closed", func() error {
		a, s := descriptors(t, n.Pid()), descriptors(t, supervisor)
		if a > agentFiles+4 || s > supervisorFiles+4 {
			return fmt.Errorf("the agent has %d, had %d; the supervisor has %d, had %d", a, agentFiles, s, supervisorFiles)
		}
		return nil
	})
	testenv.Eventually(t, eventLimit, "commands are killed", func() error {
		if left := n.Exec(id, "sh", "-c", "pidof cat tail | wc -w"); left != "0\n" {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	n.quiet(supervisor)
	for _, stack := range n.goroutines() {
		for _, ours := range []string{"cri/stream.(*session)", "sandbox.(*client)", "sandbox.(*Manager).Exec", "sandbox.(*Manager).Attach", "sandbox.(*execution)", "sandbox.follow", "spdystream"} {
			if strings.Contains(stack, ours) {
				t.Errorf("left: %s", stack)
			}
		}
	}
}

// quiet waits until nothing is being opened or closed any more: a command whose client went away as it started is
// started, then killed, and comes and goes with its descriptors.
func (n *node) quiet(supervisor int) {
	n.t.Helper()
	const looks = 50
	var last [2]int
	same := 0
	testenv.Eventually(n.t, eventLimit, "agent and supervisor are quiet", func() error {
		now := [2]int{descriptors(n.t, n.Pid()), descriptors(n.t, supervisor)}
		if same++; now != last {
			last, same = now, 0
		}
		if same < looks {
			return fmt.Errorf("%d descriptors, the same for %d looks of %d", now, same, looks)
		}
		return nil
	})
}

// sessions begins and breaks off sessions of each kind in turn.
func (n *node) sessions(id, tty string, rounds int) {
	n.t.Helper()
	for i := range rounds {
		switch i % 6 {
		case 0:
			if _, err := n.ExecSync(id, 10, "/no/such/program"); err == nil {
				n.t.Error("there is no such program")
			}
		case 1:
			socket, _ := n.dial(n.execURL(id, true, "/no/such/program"))
			_, _ = io.Copy(io.Discard, socket)
			socket.Close()
		case 2:
			_, conn := n.dial(n.execURL(id, false, "tail", "-f", "/dev/null"))
			reset(conn)
		case 3:
			// More than fits into all buffers, and nobody reads.
			socket, conn := n.dial(n.execURL(id, true, "cat", "/dev/zero"))
			_ = websocket.Message.Send(socket, append([]byte{4}, `{"Width":80,"Height":24}`...))
			reset(conn)
		case 4:
			_, conn := n.dial(n.attachURL([]string{id, tty}[i/6%2], i/6%2 == 1))
			reset(conn)
		case 5:
			n.spdy(n.execURL(id, true, "cat"))
		}
	}
}

func (n *node) attachURL(id string, tty bool) string {
	n.t.Helper()
	ctx, cancel := n.Context()
	defer cancel()
	answer, err := n.Runtime().Attach(ctx, &runtimeapi.AttachRequest{ContainerId: id, Tty: tty, Stdin: true, Stdout: true, Stderr: !tty})
	n.Must("attach", err)
	return answer.Url
}

// goroutines ends the agent in a way that makes it tell of each of its goroutines, and starts it again.
func (n *node) goroutines() []string {
	n.t.Helper()
	n.Must("end the agent", syscall.Kill(n.Pid(), syscall.SIGQUIT))
	testenv.Eventually(n.t, eventLimit, "the agent ends", func() error {
		if !n.Exited() {
			return errors.New("it runs")
		}
		return nil
	})
	log, err := os.ReadFile(n.LogPath)
	n.Must("read the agent's log", err)
	n.Kill9() // takes the status of the process that has ended
	n.Start()
	_, told, found := strings.Cut(string(log), "SIGQUIT: quit")
	if !found {
		n.t.Fatal("the agent did not tell of its goroutines")
	}
	return strings.Split(told, "\n\n")
}

// CVE-2026-35469: frames of SPDY that announce more entries than they bring, for which memory was made at once.
func TestCVE202635469CountsInFrames(t *testing.T) {
	n := newNode(t)
	id, _ := n.running(idle("quiet"))
	frame := func(kind uint16, body []byte) []byte {
		out := binary.BigEndian.AppendUint16(nil, 0x8003) // a control frame of version 3
		out = binary.BigEndian.AppendUint16(out, kind)
		return append(binary.BigEndian.AppendUint32(out, uint32(len(body))), body...)
	}
	var block bytes.Buffer
	packed := zlib.NewWriter(&block)
	_ = binary.Write(packed, binary.BigEndian, uint32(1<<30))
	n.Must("pack", packed.Close())
	for name, bytes := range map[string][]byte{
		"settings": frame(4, binary.BigEndian.AppendUint32(nil, 1<<30)),
		"headers":  frame(1, append([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, block.Bytes()...)),
		"reply":    frame(2, append([]byte{0, 0, 0, 1}, block.Bytes()...)),
	} {
		before := memory(t, n.Pid(), "VmHWM")
		conn := n.upgrade(n.execURL(id, false, "true"))
		_, err := conn.Write(bytes)
		n.Must("send", err)
		n.Must("set deadline", conn.SetDeadline(time.Now().Add(eventLimit)))
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the session goes on: %v", name, err)
		}
		conn.Close()
		if grown := memory(t, n.Pid(), "VmHWM") - before; grown > 64<<20 {
			t.Errorf("%s: %d bytes more", name, grown)
		}
	}
	if got := n.Exec(id, "echo", "here"); got != "here\n" {
		t.Errorf("%q", got)
	}
}
