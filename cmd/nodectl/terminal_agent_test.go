package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"golang.org/x/sys/unix"
)

// TestTerminals tries what a person sees on a terminal, whatever dies, against
// a real agent.
func TestTerminals(t *testing.T) {
	p := newPerson(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"short ones", p.shortOnes}, {"attached again", p.attachedAgain}, {"sizes of several", p.sizesOfSeveral}, {"signals", p.signals},
		{"agent dies", p.agentDies}, {"supervisor dies", p.supervisorDies},
	} {
		t.Run(part.name, func(t *testing.T) {
			defer p.removeAll(t)
			part.test(t)
		})
	}
}

// shortOnes end at once, and all they said is there, and their code.
func (p *person) shortOnes(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "host", "busybox", "sleep", "1000")
	for range 10 {
		run := p.onTerminal(p.command("run", "--rm", "-it", "busybox", "sh", "-c", "stty size; exit 3"))
		exec := p.onTerminal(p.command("exec", "-it", "host", "sh", "-c", "stty size; exit 4"))
		run.ends(3)
		run.shows("24 80\r\n")
		exec.ends(4)
		exec.shows("24 80\r\n")
	}
	p.want("host", "rm", "-f", "host")
}

// attachedAgain: who comes back from a terminal of the same size sees the
// prompt without pressing a key.
func (p *person) attachedAgain(t *testing.T) {
	p.t = t
	shell := p.onTerminal(p.command("run", "-it", "--name", "shell", "busybox", "sh"))
	shell.shows("# ")
	shell.write("\x10\x11")
	shell.ends(0)
	for range 5 {
		again := p.onTerminal(p.command("attach", "shell"))
		again.shows("# ")
		again.write("stty size\n")
		again.shows("24 80")
		again.write("\x10\x11")
		again.ends(1)
	}
	p.want("shell", "rm", "-f", "shell")
}

// sizesOfSeveral: the terminal is as large as that of who changed its size last.
func (p *person) sizesOfSeveral(t *testing.T) {
	p.t = t
	first := p.onTerminal(p.command("run", "-it", "--name", "many", "busybox", "sh"))
	first.shows("# ")
	second := p.onTerminal(p.command("attach", "many"))
	second.shows("# ")
	for i, client := range []*onTerminal{first, second, first} {
		columns := 90 + i
		if err := pty.Setsize(client.master, &pty.Winsize{Cols: uint16(columns), Rows: 30}); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("30 %d\r\n", columns)
		testenv.Eventually(t, patience, "the size is "+want, func() error {
			first.write("stty size\n")
			second.mu.Lock()
			defer second.mu.Unlock()
			if !strings.Contains(second.screen.String(), want) {
				return errNotYet
			}
			return nil
		})
	}
	first.write("exit 3\n")
	first.ends(3)
	second.ends(3)
	p.want("many", "rm", "many")
}

// signals: Ctrl-C goes to the process of a terminal, and by nodectl to that of a
// container without one; one that is not proxied, such as a hang-up, leaves the
// container alone.
func (p *person) signals(t *testing.T) {
	p.t = t
	const script = `trap "echo got it; exit 5" INT; echo ready; while true; do sleep 0.05; done`
	p.ctl("run", "-d", "--name", "host", "busybox", "sleep", "1000")
	for _, args := range [][]string{{"run", "--rm", "-it", "busybox"}, {"run", "--rm", "busybox"}, {"exec", "-it", "host"}} {
		o := p.onTerminal(p.command(append(args, "sh", "-c", script)...))
		o.shows("ready")
		o.write("\x03")
		o.shows("got it")
		o.ends(5)
	}
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGKILL} {
		o := p.onTerminal(p.command("run", "-it", "--sig-proxy=false", "--name", "left", "busybox", "sh"))
		o.shows("# ")
		if err := o.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		<-o.exited
		testenv.Eventually(t, patience, "the terminal is as before", func() error {
			if o.mode() != o.before {
				return errNotYet
			}
			return nil
		})
		p.want("running", "inspect", "-f", "{{.State.Status}}", "left")
		p.ctl("rm", "-f", "left")
	}
	ended := p.onTerminal(p.command("run", "--rm", "-it", "busybox", "sh", "-c", strings.ReplaceAll(script, "INT", "TERM")))
	ended.shows("ready")
	if err := ended.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended.shows("got it")
	ended.ends(5)
	p.want("host", "rm", "-f", "host")
}

// lost is what is said of an agent that dies while it is talked to; which of the
// two depends on how far its end had come.
var lost = []string{"Error: the connection to the nodeagent was lost", "Error: cannot connect to the nodeagent at "}

// agentDies: whoever is attached is told and has their terminal back, and what
// they were attached to goes on.
func (p *person) agentDies(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "host", "busybox", "sleep", "1000")
	run := p.onTerminal(p.command("run", "-it", "--name", "shell", "busybox", "sh"))
	run.shows("# ")
	attached := p.onTerminal(p.command("attach", "shell"))
	attached.shows("# ")
	exec := p.onTerminal(p.command("exec", "-it", "host", "sh"))
	exec.shows("# ")
	follower := p.onTerminal(p.command("run", "--name", "talks", "busybox", "sh", "-c", "echo talks; sleep 1000"))
	follower.shows("talks")
	logs := p.onTerminal(p.command("logs", "-f", "talks"))
	logs.shows("talks")
	p.Kill9()
	for o, code := range map[*onTerminal]int{run: 125, attached: 1, exec: 1, follower: 125, logs: 1} {
		o.ends(code)
		testenv.Eventually(t, patience, "it is told", func() error {
			o.mu.Lock()
			defer o.mu.Unlock()
			if text := o.screen.String(); !strings.Contains(text, lost[0]) && !strings.Contains(text, lost[1]) {
				return fmt.Errorf("%v: %q", o.cmd.Args, text)
			}
			return nil
		})
	}
	p.Start()
	again := p.onTerminal(p.command("attach", "shell"))
	again.write("echo went $((40+2)); exit 6\n")
	again.shows("went 42")
	again.ends(6)
	p.ctl("rm", "-f", "host", "shell", "talks")
}

// supervisorDies: a container without a terminal goes on, one with a terminal ends
// with it, as do its clients.
func (p *person) supervisorDies(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "plain", "busybox", "sleep", "1000")
	attached := p.onTerminal(p.command("run", "-it", "--name", "shell", "busybox", "sh"))
	attached.shows("# ")
	if err := unix.Kill(p.Supervisor(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-attached.exited
	if attached.mode() != attached.before {
		t.Error("the terminal's mode was not restored")
	}
	p.eventually("exited", "inspect", "-f", "{{.State.Status}}", "shell")
	p.want("running", "inspect", "-f", "{{.State.Status}}", "plain")
	p.want("on", "exec", "plain", "echo", "on")
	p.ctl("rm", "-f", "plain", "shell")
}
