package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

var errNotYet = errors.New("not yet")

// TestAttached tries several clients at once, and leaving, against a real
// agent.
func TestAttached(t *testing.T) {
	p := newPerson(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"several clients", p.severalClients}, {"exec is left", p.execIsLeft}, {"start -ai", p.startAttached}, {"healthcheck of an image", p.imageHealth},
		{"sizes", p.sizes},
	} {
		t.Run(part.name, func(t *testing.T) {
			defer p.removeAll(t)
			part.test(t)
		})
	}
}

// severalClients see the same, and one that leaves does not take the others
// along. The container was made detached, with a terminal.
func (p *person) severalClients(t *testing.T) {
	p.t = t
	p.ctl("run", "-dit", "--name", "many", "busybox", "sh")
	first, second := p.onTerminal(p.command("attach", "many")), p.onTerminal(p.command("attach", "--detach-keys", "ctrl-a,d", "many"))
	watcher := p.onTerminal(p.command("attach", "--no-stdin", "many"))
	// What was shown before a client came is not shown to it again.
	for i, client := range []*onTerminal{first, second, watcher} {
		testenv.Eventually(t, patience, "all are attached", func() error {
			first.write(fmt.Sprintf("echo from-%d-$((1+1))\n", i))
			client.mu.Lock()
			defer client.mu.Unlock()
			if !strings.Contains(client.screen.String(), fmt.Sprintf("from-%d-2", i)) {
				return errNotYet
			}
			return nil
		})
	}
	second.write("\x01d")
	second.shows("read escape sequence")
	second.ends(1)
	first.write("exit 6\n")
	first.ends(6)
	watcher.ends(6)
	p.want("many", "rm", "many")
}

func (p *person) execIsLeft(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "host", "busybox", "sleep", "1000")
	shell := p.onTerminal(p.command("exec", "-it", "--detach-keys", "ctrl-x", "host", "sh"))
	shell.write("echo in-$((3+4))\n")
	shell.shows("in-7")
	shell.write("sleep 0.3; touch /went-on; sleep 1000\n\x18")
	shell.shows("read escape sequence")
	shell.ends(1)
	p.eventuallyRuns("exec", "host", "test", "-e", "/went-on")
	p.want("host", "rm", "-f", "host")
}

func (p *person) startAttached(t *testing.T) {
	p.t = t
	p.ctl("create", "-i", "--name", "cat", "busybox", "sh", "-c", "cat; exit 9")
	cmd := p.command("start", "-ai", "cat")
	cmd.Stdin = strings.NewReader("typed\n")
	out, _ := cmd.Output()
	if cmd.ProcessState.ExitCode() != 9 || string(out) != "typed\n" {
		t.Errorf("%q %s", out, cmd.ProcessState)
	}
	if said := p.fails("start", "-a", "cat", "other"); said != "Error: you cannot start and attach multiple containers at once" {
		t.Error(said)
	}
	p.want("cat", "rm", "cat")
}

// imageHealth: the check that an image brings is run.
func (p *person) imageHealth(t *testing.T) {
	p.t = t
	p.ctl("create", "--name", "base", "busybox", "sleep", "1000")
	p.ctl("commit", "-c", "HEALTHCHECK --interval=50ms --retries=1 CMD test -e /ok", "base", "checked")
	p.ctl("run", "-d", "--name", "checked", "checked")
	p.eventually("unhealthy", "inspect", "-f", "{{.State.Health.Status}}", "checked")
	p.ctl("exec", "checked", "touch", "/ok")
	p.eventually("healthy", "inspect", "-f", "{{.State.Health.Status}}", "checked")
	p.ctl("run", "-d", "--name", "unchecked", "--no-healthcheck", "checked")
	p.want("false", "inspect", "-f", "{{if .State.Health}}true{{else}}false{{end}}", "unchecked")
	p.ctl("rm", "-f", "base", "checked", "unchecked")
	p.ctl("rmi", "checked")
}

func (p *person) sizes(t *testing.T) {
	p.t = t
	p.ctl("run", "--name", "fat", "busybox", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null; sync")
	testenv.Eventually(t, patience, "the size is told", func() error {
		if out := p.ctl("ps", "-as", "--format", "{{.Size}}"); !strings.HasPrefix(out, "3.1") || !strings.Contains(out, "MB (virtual ") {
			t.Log(out)
			return errNotYet
		}
		return nil
	})
	if out := p.ctl("inspect", "-s", "-f", "{{.SizeRw}}", "fat"); !strings.HasPrefix(out, "31") {
		t.Error(out)
	}
	p.want("fat", "rm", "fat")
}
