package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"golang.org/x/sys/unix"
)

// person is somebody at a node with a real agent, where busybox is pulled.
type person struct {
	*testenv.AgentProcess
	t *testing.T
}

func newPerson(t *testing.T) *person {
	t.Helper()
	testenv.Root(t)
	if testing.Short() {
		t.Skip("starts an agent and pulls images")
	}
	testenv.Leaks(t)
	p := &person{t: t, AgentProcess: testenv.Agent(t, testenv.AgentOptions{Registry: testenv.Registry(t)})}
	p.ctl("pull", "-q", "busybox")
	return p
}

// command is nodectl with arguments, not started yet.
func (p *person) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nodectl", args...)
	cmd.Env = append(os.Environ(), "NODEAGENT_HOST=unix://"+p.Socket, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// ctl runs nodectl, which must succeed, and returns what it said.
func (p *person) ctl(args ...string) string {
	p.t.Helper()
	return p.fed("", args...)
}

// fed is ctl with input.
func (p *person) fed(input string, args ...string) string {
	p.t.Helper()
	cmd := p.command(args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		stderr := ""
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = string(exit.Stderr)
		}
		p.t.Fatalf("nodectl %s: %v: %s%s", strings.Join(args, " "), err, out, stderr)
	}
	return strings.TrimSpace(string(out))
}

// want checks what nodectl says.
func (p *person) want(want string, args ...string) {
	p.t.Helper()
	if got := p.ctl(args...); got != want {
		p.t.Errorf("nodectl %s: got %q, want %q", strings.Join(args, " "), got, want)
	}
}

func TestAgainstAnAgent(t *testing.T) {
	p := newPerson(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"streams", p.streams}, {"terminal", p.terminal}, {"layer and tmpfs", p.layerAndTmpfs}, {"ports", p.ports},
		{"self-removal", p.selfRemoval}, {"exec", p.exec}, {"limits", p.limits}, {"agent killed", p.agentKilled},
		{"looked at", p.lookedAt}, {"changes", p.changes},
	} {
		t.Run(part.name, func(t *testing.T) {
			// One part's failure is not to be another's.
			defer p.removeAll(t)
			part.test(t)
		})
	}
}

// removeAll removes what a part of the test left, which is none where it
// succeeded.
func (p *person) removeAll(t *testing.T) {
	p.t = t
	left := strings.Fields(p.ctl("ps", "-aq"))
	if len(left) == 0 {
		return
	}
	if !t.Failed() {
		t.Errorf("left: %s", left)
	}
	p.ctl(append([]string{"rm", "-f"}, left...)...)
}

func (p *person) streams(t *testing.T) {
	p.t = t
	if got := p.fed("typed\n", "run", "-i", "--rm", "busybox", "cat"); got != "typed" {
		t.Errorf("got %q", got)
	}
	p.want("12", "run", "--rm", "--name", "web", "busybox", "sh", "-c", "test $HOSTNAME = $(hostname) && echo ${#HOSTNAME}")
	big := p.ctl("run", "--rm", "busybox", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
	if lines := strings.Split(big, "\n"); len(lines) != 20000 || lines[19999] != "line 19999" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
	var said strings.Builder
	missing := p.command("run", "--rm", "busybox", "nosuch")
	missing.Stderr = &said
	_ = missing.Run()
	want := "Error: failed to start container: exec: \"nosuch\": executable file not found in $PATH\n\nRun 'nodectl run --help' for more information\n"
	if missing.ProcessState.ExitCode() != 127 || said.String() != want {
		t.Errorf("a missing program: %q %s", said.String(), missing.ProcessState)
	}
	p.ctl("run", "-d", "--name", "logger", "busybox", "sh", "-c", "echo out; echo err >&2; sleep 1; echo end")
	p.want("out\nend", "logs", "-f", "logger")
	p.want("end", "logs", "-n", "1", "logger")
	p.want("0", "wait", "logger")
	p.want("logger", "rm", "logger")
}

// terminal runs a shell on a pseudo-terminal, leaves it, and comes back.
func (p *person) terminal(t *testing.T) {
	p.t = t
	for range 5 { // the size is there before the process can ask for it
		size := p.onTerminal(p.command("run", "-it", "--rm", "busybox", "stty", "size"))
		size.shows("24 80")
		size.ends(0)
	}
	shell := p.onTerminal(p.command("run", "-it", "--name", "shell", "busybox", "sh"))
	shell.write("stty size; tty\n")
	shell.shows("24 80")
	shell.shows("/dev/pts/0")
	if err := pty.Setsize(shell.master, &pty.Winsize{Cols: 99, Rows: 33}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, patience, "the size follows", func() error {
		shell.write("stty size\n")
		shell.mu.Lock()
		defer shell.mu.Unlock()
		if !strings.Contains(shell.screen.String(), "33 99") {
			return fmt.Errorf("%q", shell.screen.String())
		}
		return nil
	})
	shell.write("\x10\x11")
	shell.shows("read escape sequence")
	shell.ends(0)
	p.want("running", "inspect", "-f", "{{.State.Status}}", "shell")
	again := p.onTerminal(p.command("attach", "shell"))
	again.write("echo back $((40+2)); exit 4\n")
	again.shows("back 42")
	again.ends(4)
	p.want("exited 4", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "shell")
	p.want("shell", "rm", "shell")
}

// onTerminal starts a command on a pseudo-terminal.
func (p *person) onTerminal(cmd *exec.Cmd) *onTerminal {
	p.t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		p.t.Fatal(err)
	}
	o := &onTerminal{t: p.t, master: master, cmd: cmd, exited: make(chan error, 1)}
	o.before = o.mode()
	if err := pty.Setsize(master, &pty.Winsize{Cols: 80, Rows: 24}); err != nil {
		p.t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(screen{o}, master)
	}()
	go func() { o.exited <- cmd.Wait() }()
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = slave.Close()
		_ = master.Close()
		<-read
	})
	return o
}

// layerAndTmpfs: what is written to the container stays, a tmpfs is fresh.
func (p *person) layerAndTmpfs(t *testing.T) {
	p.t = t
	source := filepath.Join(t.TempDir(), "made")
	p.ctl("run", "--name", "keeper", "-v", source+":/bound", "--tmpfs", "/scratch:size=1m", "busybox", "sh", "-c",
		"ls /kept /scratch/gone; touch /kept /scratch/gone /bound/out; df -k /scratch | tail -n 1")
	if out := p.ctl("start", "-a", "keeper"); !strings.Contains(out, "/kept") || strings.Contains(out, "gone") || !strings.Contains(out, "1024") {
		t.Errorf("second start: %q", out)
	}
	if _, err := os.Stat(filepath.Join(source, "out")); err != nil {
		t.Error(err)
	}
	p.want("keeper", "rm", "keeper")
}

func (p *person) ports(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "site", "-p", "127.0.0.1::80", "busybox", "sh", "-c", "echo pages > /index.html; exec httpd -f -p 80 -h /")
	addr := p.ctl("port", "site", "80")
	testenv.Eventually(t, patience, "the port answers", func() error {
		client := http.Client{Timeout: time.Second}
		resp, err := client.Get("http://" + addr + "/")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "pages\n" {
			return fmt.Errorf("%q %w", text, err)
		}
		return nil
	})
	if out := p.ctl("ps", "--format", "{{.Ports}}"); out != addr+"->80/tcp" {
		t.Errorf("ports: %q", out)
	}
	p.want("site", "rm", "-f", "site")
}

func (p *person) selfRemoval(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--rm", "--name", "short", "busybox", "sleep", "1")
	testenv.Eventually(t, patience, "the container removes itself", func() error {
		if out := p.ctl("ps", "-aq"); out != "" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

func (p *person) exec(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "host", "busybox", "sleep", "1000")
	p.want("65534 /tmp v", "exec", "-u", "65534:65534", "-w", "/tmp", "-e", "K=v", "host", "sh", "-c", "echo $(id -u) $(pwd) $K")
	if got := p.fed("typed", "exec", "-i", "host", "cat"); got != "typed" {
		t.Errorf("got %q", got)
	}
	size := p.onTerminal(p.command("exec", "-it", "host", "stty", "size"))
	size.shows("24 80")
	size.ends(0)
	shell := p.onTerminal(p.command("exec", "-it", "host", "sh"))
	shell.write("stty size; exit 3\n")
	shell.shows("24 80")
	shell.ends(3)
	p.ctl("exec", "-d", "host", "sh", "-c", "touch /done")
	testenv.Eventually(t, patience, "the detached command runs", func() error {
		return p.command("exec", "host", "test", "-e", "/done").Run()
	})
	p.want("host", "stop", "-t", "0", "host")
	p.want("137", "wait", "host")
	p.want("host", "restart", "host")
	p.want("running", "inspect", "-f", "{{.State.Status}}", "host")
	p.want("host", "rm", "-f", "host")
}

func (p *person) limits(t *testing.T) {
	p.t = t
	p.want("denied", "run", "--rm", "--read-only", "busybox", "sh", "-c", "touch /x 2>/dev/null || echo denied")
	p.want("denied", "run", "--rm", "busybox", "sh", "-c", "mount -t tmpfs x /tmp 2>/dev/null || echo denied")
	p.want("allowed", "run", "--rm", "--privileged", "busybox", "sh", "-c", "mount -t tmpfs x /tmp && echo allowed")
	out := p.ctl("run", "--rm", "-m", "64m", "busybox", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true")
	if out != "67108864" {
		t.Errorf("memory limit %q", out)
	}
	p.want("10.1.2.3 db", "run", "--rm", "--add-host", "db:10.1.2.3", "busybox", "sh", "-c", "grep 'db$' /etc/hosts | tr '\\t' ' '")
}

// agentKilled: a container goes on, and one that removes itself still does.
func (p *person) agentKilled(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
	p.ctl("run", "-d", "--rm", "--name", "goes", "busybox", "sleep", "2")
	pid := p.ctl("inspect", "-f", "{{.State.Pid}}", "stays")
	p.Kill9()
	p.Start()
	p.want("running "+pid, "inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "stays")
	testenv.Eventually(t, patience, "the other removes itself", func() error {
		if out := p.ctl("ps", "-a", "--format", "{{.Names}}"); out != "stays" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	p.want("stays", "rm", "-f", "stays")
}

// lookedAt: a container is paused, renamed, and looked at.
func (p *person) lookedAt(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "first", "--pids-limit", "50", "busybox", "sh", "-c", "sleep 1000 & while true; do :; done")
	p.want("first", "pause", "first")
	p.want("paused", "inspect", "-f", "{{.State.Status}}", "first")
	if out := p.ctl("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}", "first"); out != "first 0.00%" {
		t.Errorf("a paused container: %q", out)
	}
	p.want("first", "unpause", "first")
	p.want("running", "inspect", "-f", "{{.State.Status}}", "first")
	p.want("", "rename", "first", "second")
	p.want("second", "ps", "--format", "{{.Names}}")
	testenv.Eventually(t, patience, "top shows both processes", func() error {
		lines := strings.Split(p.ctl("top", "second", "-eo", "pid,args"), "\n")
		if len(lines) != 3 || !strings.HasSuffix(lines[1]+lines[2], "sleep 1000") {
			return fmt.Errorf("%q", lines)
		}
		return nil
	})
	var percent float64
	var tasks int
	out := p.ctl("stats", "--no-stream", "--format", "{{.CPUPerc}} {{.PIDs}}")
	if _, err := fmt.Sscanf(out, "%f%% %d", &percent, &tasks); err != nil || percent <= 0 || tasks != 2 {
		t.Errorf("stats: %q %v", out, err)
	}
	p.Kill9()
	p.Start()
	p.want("running", "inspect", "-f", "{{.State.Status}}", "second")
	p.want("50", "exec", "second", "sh", "-c", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null || true")
	p.want("second", "rm", "-f", "second")
}

// changes: those of the container alone, whether it runs or not.
func (p *person) changes(t *testing.T) {
	p.t = t
	p.ctl("run", "--name", "changer", "busybox", "sh", "-c", "echo x >> /etc/passwd; mkdir /new; touch /new/file; rm -r /root; ln -s /proc /new/link")
	out := p.ctl("diff", "changer")
	for _, line := range []string{"C /etc", "C /etc/passwd", "A /new", "A /new/file", "A /new/link", "D /root"} {
		if !strings.Contains("\n"+out+"\n", "\n"+line+"\n") {
			t.Errorf("diff lacks %q: %q", line, out)
		}
	}
	if strings.Contains(out, "/new/link/") {
		t.Errorf("a link was followed: %q", out)
	}
	p.want("changer", "rm", "changer")
}
