package cri

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/sandbox"
	"golang.org/x/net/websocket"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// output reads what a URL streams, on all channels together.
func output(t *testing.T, link string) string {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "http" || u.Hostname() != "127.0.0.1" || u.Port() == "0" {
		t.Fatalf("URL %q, %v", link, err)
	}
	u.Scheme = "ws"
	config, err := websocket.NewConfig(u.String(), "http://localhost/")
	if err != nil {
		t.Fatal(err)
	}
	config.Protocol = []string{"v4.channel.k8s.io"}
	conn, err := websocket.DialConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	var all strings.Builder
	for {
		var message []byte
		if err := websocket.Message.Receive(conn, &message); err != nil {
			if err != io.EOF {
				t.Error(err)
			}
			return all.String()
		}
		all.Write(message[1:])
	}
}

// TestStreamURLs follows the URL of each streaming RPC to its end.
func TestStreamURLs(t *testing.T) {
	h := newHarness()
	h.sandboxes.pods = []sandbox.Pod{testPod("aa")}
	h.sandboxes.containers = []sandbox.Container{testContainer("c1", "aa")}
	h.sandboxes.exec = func(_ context.Context, req sandbox.ExecRequest) (int, error) {
		_, err := fmt.Fprintf(req.IO.Stdout, "exec %s in %s tty %v", req.Cmd, req.ContainerID, req.IO.TTY)
		return 4, err
	}
	h.sandboxes.attach = func(_ context.Context, id string, streams sandbox.IO) error {
		_, err := fmt.Fprintf(streams.Stdout, "attach to %s", id)
		return err
	}
	h.sandboxes.forward = func(_ context.Context, id string, port uint16, stream io.ReadWriteCloser) error {
		_, err := fmt.Fprintf(stream, "port %d of %s", port, id)
		return err
	}
	h.serve(t)
	exec, err := h.Exec(t.Context(), &runtime.ExecRequest{ContainerId: "c1", Cmd: []string{"a", "b"}, Stdin: true, Stdout: true, Tty: true})
	if err != nil {
		t.Fatal(err)
	}
	text := output(t, exec.GetUrl())
	if !strings.Contains(text, "exec [a b] in "+testID("c1")+" tty true") || !strings.Contains(text, `"reason":"ExitCode","message":"4"`) {
		t.Errorf("exec: %q", text)
	}
	attach, err := h.Attach(t.Context(), &runtime.AttachRequest{ContainerId: "c1", Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if text := output(t, attach.GetUrl()); !strings.Contains(text, "attach to "+testID("c1")) {
		t.Errorf("attach: %q", text)
	}
	forward, err := h.PortForward(t.Context(), &runtime.PortForwardRequest{PodSandboxId: "aa", Port: []int32{8080}})
	if err != nil {
		t.Fatal(err)
	}
	if text := output(t, forward.GetUrl()); !strings.Contains(text, "port 8080 of "+testID("aa")) {
		t.Errorf("port forward: %q", text)
	}
}
