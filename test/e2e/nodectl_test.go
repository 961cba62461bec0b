package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// ctl runs nodectl, which must succeed, and returns what it wrote to standard output.
func (n *node) ctl(args ...string) string {
	n.t.Helper()
	out := n.Nodectl(args...)
	if out.Code != 0 {
		n.t.Fatalf("nodectl %s: exit code %d: %s%s", strings.Join(args, " "), out.Code, out.Stdout, out.Stderr)
	}
	return strings.TrimSpace(out.Stdout)
}

// A person's way with a container, from pull to rmi.
func TestNodectl(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	for _, one := range []struct{ command, want string }{{"version", "Version"}, {"info", "Images"}} {
		if out := n.ctl(one.command); !strings.Contains(out, one.want) {
			t.Errorf("%s: %s", one.command, out)
		}
	}
	if out := n.ctl("pull", "busybox"); !strings.Contains(out, "busybox:latest") {
		t.Errorf("pull: %s", out)
	}
	if out := n.ctl("images"); !strings.Contains(out, "busybox") {
		t.Errorf("images: %s", out)
	}
	id := n.ctl("run", "-d", "--name", "person", "busybox", "sh", "-c", "echo hello from $HOSTNAME; sleep 1000")
	if len(id) != 64 {
		t.Errorf("run -d gives %q", id)
	}
	if out := n.ctl("ps"); !strings.Contains(out, id[:12]) || !strings.Contains(out, "person") || !strings.Contains(out, "Up ") {
		t.Errorf("ps: %s", out)
	}
	testenv.Eventually(t, eventLimit, "the log has the line", func() error {
		if out := n.ctl("logs", "person"); !strings.Contains(out, "hello from") {
			return fmt.Errorf("logs: %q", out)
		}
		return nil
	})
	if out := n.ctl("exec", "person", "echo", "inside"); out != "inside" {
		t.Errorf("exec: %q", out)
	}
	var inspected []map[string]any
	if err := json.Unmarshal([]byte(n.ctl("inspect", "person")), &inspected); err != nil || len(inspected) != 1 || inspected[0]["Id"] != id {
		t.Errorf("inspect: %v: %v", err, inspected)
	}
	if pods := n.listPods(); len(pods) != 0 {
		t.Errorf("kubelet sees a person's container: %v", pods)
	}
	if out := n.ctl("stop", "-t", "1", "person"); out != "person" {
		t.Errorf("stop: %q", out)
	}
	if out := n.ctl("ps", "-a"); !strings.Contains(out, "Exited") {
		t.Errorf("ps -a: %s", out)
	}
	n.ctl("rm", "person")
	n.ctl("rmi", "busybox")
	if out := n.ctl("images", "-q"); out != "" {
		t.Errorf("images left: %s", out)
	}
}

// Exit codes are docker's: the container's own, and 125 to 127 when there was none to have.
func TestNodectlExitCodes(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", images.Busybox)
	for _, test := range []struct {
		args []string
		code int
	}{
		{[]string{"run", "--rm", images.Busybox, "true"}, 0},
		{[]string{"run", "--rm", images.Busybox, "sh", "-c", "exit 42"}, 42},
		{[]string{"run", "--rm", images.Busybox, "/no/such/program"}, 127},
		{[]string{"run", "--rm", images.Busybox, "/etc/passwd"}, 126},
		{[]string{"run", "--rm", "--no-such-flag", images.Busybox}, 125},
		{[]string{"run", "--rm", "registry.k8s.io/no/such:image"}, 125},
		{[]string{"inspect", "nosuchcontainer"}, 1},
		{[]string{"rm", "nosuchcontainer"}, 1},
	} {
		if out := n.Nodectl(test.args...); out.Code != test.code {
			t.Errorf("nodectl %s: exit code %d, want %d: %s", strings.Join(test.args, " "), out.Code, test.code, out.Stderr)
		}
	}
	if left := n.ctl("ps", "-a", "-q"); left != "" {
		t.Errorf("left: %s", left)
	}
}
