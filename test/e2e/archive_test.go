package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// peer is containerd without CRI, for its ctr.
type peer struct {
	t      *testing.T
	socket string
}

// startPeer starts containerd on folders of its own.
func startPeer(t *testing.T) *peer {
	t.Helper()
	if _, err := os.Stat(filepath.Join(testenv.CacheDir(), "bin", "containerd")); err != nil {
		t.Skip("compares with containerd, which `make peers` builds")
	}
	dir, err := os.MkdirTemp("", "ctrd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &peer{t: t, socket: filepath.Join(dir, "s")}
	config := fmt.Sprintf("version = 3\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \"io.containerd.podsandbox.controller.v1.podsandbox\"]\n[grpc]\naddress = %q\n",
		filepath.Join(dir, "root"), filepath.Join(dir, "state"), p.socket)
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(testenv.Tool(t, "containerd"), "--config", filepath.Join(dir, "config.toml"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	testenv.Eventually(t, eventLimit, "containerd answers", func() error {
		out, err := p.run("version")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return p
}

// run runs ctr.
func (p *peer) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, testenv.Tool(p.t, "ctr"), append([]string{"-a", p.socket}, args...)...).CombinedOutput()
	return string(out), err
}

// Archives are what others take them to be: containerd reads what we save, its copy is the same image, and we read
// what it writes.
func TestArchivesGoToContainerdAndBack(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	p := startPeer(t)
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours.tar"), filepath.Join(dir, "theirs.tar")
	n.ctl("pull", "busybox")
	n.ctl("run", "--name", "made", "busybox", "sh", "-c", "echo made > /made; rm /etc/group; ln /made /twin")
	n.ctl("commit", "made", "made:1")
	n.ctl("rm", "made")
	n.ctl("save", "-o", ours, "made:1", "busybox")
	for _, args := range [][]string{
		{"images", "import", "--local", "--no-unpack", ours}, {"images", "check"},
		{"images", "export", "--platform", "linux/amd64", theirs, "docker.io/library/made:1"},
	} {
		out, err := p.run(args...)
		if err != nil {
			t.Fatalf("ctr %v: %v: %s", args, err, out)
		}
		if args[1] == "check" && strings.Count(out, " complete ") != 2 {
			t.Errorf("containerd got: %s", out)
		}
	}
	id := n.ctl("images", "-q", "--no-trunc", "made:1")
	n.ctl("rmi", "made:1")
	if out := n.ctl("load", "-i", theirs); out != "Loaded image: made:1" {
		t.Errorf("load: %q", out)
	}
	if out := n.ctl("images", "-q", "--no-trunc", "made:1"); out != id {
		t.Errorf("it came back as %q, not %q", out, id)
	}
	if out := n.ctl("run", "--rm", "made:1", "sh", "-c", "cat /twin; ls /etc/group 2>/dev/null || echo gone"); out != "made\ngone" {
		t.Errorf("run: %q", out)
	}
	n.ctl("rmi", "made:1", "busybox")
}

// A commit that is killed at any step leaves no image and no part of one, and the container goes on.
func TestCommitKilledBetween(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.ctl("pull", "busybox")
	n.ctl("run", "-d", "--name", "held", "busybox", "sh", "-c", "echo own > /own; sleep 1000")
	usage := func() string { return n.ctl("system", "df", "--format", "{{.Type}} {{.TotalCount}}") }
	before := usage()
	for _, step := range []string{"layer", "documents", "unpack", "record"} {
		n.Stop()
		t.Setenv("NODEAGENT_FAILPOINTS", "image.make."+step+".after=exit")
		n.Start()
		t.Setenv("NODEAGENT_FAILPOINTS", "")
		if out := n.Nodectl("commit", "held", "made:1"); out.Code == 0 {
			t.Errorf("%s: it is made", step)
		}
		testenv.Eventually(t, eventLimit, step+" kills the agent", func() error {
			if !n.Exited() {
				return errors.New("it runs")
			}
			return nil
		})
		n.Stop()
		n.Start()
		testenv.Eventually(t, eventLimit, "the container goes on", func() error {
			if state := n.ctl("inspect", "-f", "{{.State.Status}}", "held"); state != "running" {
				return fmt.Errorf("after %s it is %s", step, state)
			}
			return nil
		})
		if step == "record" {
			n.ctl("rmi", "made:1") // whole, and known
		}
		if after := usage(); after != before {
			t.Errorf("after %s: %s, before: %s", step, after, before)
		}
	}
	n.ctl("commit", "held", "made:1")
	if out := n.ctl("run", "--rm", "made:1", "cat", "/own"); out != "own" {
		t.Errorf("run: %q", out)
	}
	n.ctl("rm", "-f", "held")
	n.ctl("rmi", "made:1", "busybox")
}
