package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// TestUpkeep tries what the agent does of itself, against a real one.
func TestUpkeep(t *testing.T) {
	p := newPerson(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"restart policies", p.restartPolicies}, {"restarts and the agent", p.restartsAndTheAgent}, {"health", p.healthChecks},
		{"events", p.events}, {"stopping", p.stopping}, {"update", p.updates}, {"logs", p.logOptions}, {"reboot", p.reboot},
	} {
		t.Run(part.name, func(t *testing.T) {
			defer p.removeAll(t)
			part.test(t)
		})
	}
}

// eventually waits until nodectl says what is wanted.
func (p *person) eventually(want string, args ...string) {
	p.t.Helper()
	testenv.Eventually(p.t, patience, "nodectl "+strings.Join(args, " ")+" says "+want, func() error {
		if out := p.ctl(args...); out != want {
			return fmt.Errorf("%q", out)
		}
		return nil
	})
}

func (p *person) restartPolicies(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "fails", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo try; exit 3")
	p.want("3", "wait", "fails")
	p.want("exited 2 3", "inspect", "-f", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", "fails")
	p.want("try\ntry\ntry", "logs", "fails")
	p.ctl("run", "-d", "--name", "loops", "--restart", "always", "busybox", "sh", "-c", "exit 1")
	testenv.Eventually(t, patience, "it waits to be restarted", func() error {
		if out := p.ctl("ps", "--format", "{{.Status}}", "-f", "name=loops"); !strings.HasPrefix(out, "Restarting (1) ") {
			return fmt.Errorf("%q", out)
		}
		return nil
	})
	// Now and then it runs for a moment.
	if said := p.fails("rm", "loops"); !strings.Contains(said, `cannot remove container "/loops": container is r`) {
		t.Error(said)
	}
	p.want("loops", "stop", "loops")
	p.want("exited", "inspect", "-f", "{{.State.Status}}", "loops")
	p.want("fails\nloops", "rm", "fails", "loops")
	if said := p.fails("run", "--rm", "--restart", "always", "busybox", "true"); !strings.Contains(said, "cannot specify both --restart and --rm") {
		t.Error(said)
	}
}

// restartsAndTheAgent: a policy holds over the death of the agent, and so does
// a person's stop.
func (p *person) restartsAndTheAgent(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "kept", "--restart", "unless-stopped", "busybox", "sleep", "1000")
	p.ctl("run", "-d", "--name", "stopped", "--restart", "always", "busybox", "sleep", "1000")
	p.want("stopped", "stop", "-t", "0", "stopped")
	pid := p.ctl("inspect", "-f", "{{.State.Pid}}", "kept")
	p.Kill9()
	testenv.Run(t, "kill", "-9", pid)
	p.Start()
	p.eventually("running 1", "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "kept")
	p.want("exited 0", "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "stopped")
	p.want("kept", "rm", "-f", "kept")
	p.want("stopped", "rm", "stopped")
}

func (p *person) healthChecks(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "well", "--health-cmd", "test -e /ok", "--health-interval", "50ms", "--health-retries", "2",
		"busybox", "sh", "-c", "touch /ok; sleep 1000")
	p.eventually("healthy", "inspect", "-f", "{{.State.Health.Status}}", "well")
	if out := p.ctl("ps", "--format", "{{.Status}}", "-f", "health=healthy"); !strings.HasSuffix(out, " (healthy)") {
		t.Errorf("%q", out)
	}
	p.ctl("exec", "well", "rm", "/ok")
	p.eventually("unhealthy", "inspect", "-f", "{{.State.Health.Status}}", "well")
	if out := p.ctl("inspect", "-f", "{{range .State.Health.Log}}{{.ExitCode}}{{end}}", "well"); !strings.HasSuffix(out, "11") {
		t.Errorf("runs ended with %s", out)
	}
	out := p.ctl("events", "--since", "1m", "--until", "0s", "-f", "event=health_status", "-f", "container=well", "--format", "{{.Action}}")
	if out != "health_status: healthy\nhealth_status: unhealthy" {
		t.Errorf("%q", out)
	}
	p.want("well", "rm", "-f", "well")
	p.ctl("run", "-d", "--name", "slow", "--health-cmd", "sleep 100", "--health-interval", "50ms", "--health-timeout", "100ms", "--health-retries", "1", "busybox", "sleep", "1000")
	p.eventually("unhealthy", "inspect", "-f", "{{.State.Health.Status}}", "slow")
	if out := p.ctl("inspect", "-f", "{{(index .State.Health.Log 0).Output}}", "slow"); !strings.HasPrefix(out, "Health check exceeded timeout (100ms)") {
		t.Errorf("%q", out)
	}
	p.want("slow", "rm", "-f", "slow")
}

func (p *person) events(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "told", "-l", "a=b", "-v", "told:/v", "busybox", "sleep", "1000")
	p.want("told", "pause", "told")
	p.want("told", "unpause", "told")
	p.ctl("rename", "told", "retold")
	p.want("retold", "restart", "-t", "0", "retold")
	p.want("retold", "stop", "-t", "0", "retold")
	p.want("retold", "rm", "retold")
	p.want("told", "volume", "rm", "told")
	got := strings.Split(p.ctl("events", "--since", "1m", "--until", "0s", "-f", "container=told", "-f", "container=retold", "-f", "type=container", "--format", "{{.Action}}"), "\n")
	want := []string{"create", "start", "pause", "unpause", "rename", "kill", "kill", "die", "stop", "start", "restart", "kill", "kill", "die", "stop", "destroy"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	out := p.ctl("events", "--since", "1m", "--until", "0s", "-f", "volume=told", "-f", "type=volume", "--format", "{{.Action}}")
	if !strings.HasPrefix(out, "create\nmount\nunmount\n") || !strings.HasSuffix(out, "\ndestroy") {
		t.Errorf("of the volume: %q", out)
	}
	p.want("b", "events", "--since", "1m", "--until", "0s", "-f", "label=a", "-f", "event=rename", "--format", "{{index .Actor.Attributes \"a\"}}")
}

func (p *person) stopping(t *testing.T) {
	p.t = t
	trap := "trap 'exit 4' INT; trap 'exit 5' TERM; touch /ready; while :; do sleep 0.05; done"
	p.ctl("run", "-d", "--name", "traps", "busybox", "sh", "-c", trap)
	ready := func() {
		t.Helper()
		testenv.Eventually(t, patience, "it traps", func() error { return p.command("exec", "traps", "test", "-e", "/ready").Run() })
		p.ctl("exec", "traps", "rm", "/ready")
	}
	ready()
	p.want("traps", "stop", "-s", "INT", "traps")
	p.want("4", "wait", "traps")
	p.want("traps", "start", "traps")
	ready()
	p.want("traps", "restart", "traps")
	ready()
	p.want("traps", "stop", "traps")
	p.want("5", "wait", "traps")
	p.want("traps", "rm", "traps")
}

func (p *person) updates(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "u", "-m", "64m", "--pids-limit", "20", "busybox", "sleep", "1000")
	p.want("u", "update", "-m", "32m", "--memory-swap", "-1", "--cpus", "0.5", "--restart", "on-failure:5", "u")
	p.want("33554432 500000000 on-failure:5", "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}", "u")
	limit := "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true"
	p.want("33554432", "exec", "u", "sh", "-c", limit)
	p.Kill9()
	p.Start()
	p.want("33554432 on-failure", "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}", "u")
	p.want("u", "restart", "-t", "0", "u")
	p.want("33554432", "exec", "u", "sh", "-c", limit)
	if said := p.fails("update", "-m", "1m", "u"); said != "Error: Minimum memory limit allowed is 6MB" {
		t.Error(said)
	}
	p.want("u", "rm", "-f", "u")
}

// logOptions: a log is rotated, and read as one; details go before its lines.
func (p *person) logOptions(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "l", "--log-opt", "max-size=1k", "--log-opt", "max-file=3", "--log-opt", "labels=a,none", "--log-opt", "env=E",
		"-l", "a=b", "-e", "E=f g", "busybox", "sh", "-c", "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done")
	path := p.ctl("inspect", "-f", "{{.LogPath}}", "l")
	testenv.Eventually(t, patience, "the log is rotated", func() error { _, err := os.Stat(path + ".1"); return err })
	p.ctl("stop", "-t", "0", "l")
	lines := strings.Split(p.ctl("logs", "l"), "\n")
	for i, line := range lines {
		if line != fmt.Sprintf("line %d", i) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	last := len(lines) - 1
	tail := strings.Split(p.ctl("logs", "-n", fmt.Sprint(last), "--details", "l"), "\n")
	if len(tail) != last || tail[0] != "E=f+g,a=b line 1" {
		t.Errorf("%d lines, the first %q", len(tail), tail[0])
	}
	p.want("l", "rm", "l")
	if said := p.fails("run", "--log-driver", "syslog", "busybox", "true"); said != "Error: logger: no log driver named 'syslog' is registered" {
		t.Error(said)
	}
}

// reboot takes away all that a reboot does: what ran, and the state folder.
// Containers are started again as their policies say, the others when a person
// does it, with their layers and volumes.
func (p *person) reboot(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "back", "--restart", "always", "-v", "kept:/v", "-p", "127.0.0.1::80", "busybox", "sh", "-c",
		"echo $(cat /v/x) > /index.html; echo x >> /v/x; exec httpd -f -p 80 -h /")
	p.ctl("run", "-d", "--name", "later", "busybox", "sh", "-c", "echo y >> /kept; sleep 1000")
	p.eventuallyRuns("exec", "later", "test", "-e", "/kept")
	p.ctl("run", "-d", "--name", "stays", "--restart", "unless-stopped", "busybox", "sleep", "1000")
	p.ctl("stop", "-t", "0", "stays")
	p.ctl("run", "-d", "--name", "own", "--userns", "auto", "--domainname", "example.com", "--tmpfs", "/t", "busybox", "sh", "-c",
		"echo $(cat /proc/sys/kernel/domainname) >> /kept; sleep 1000")
	p.eventuallyRuns("exec", "own", "test", "-e", "/kept")
	pids := []string{p.ctl("inspect", "-f", "{{.State.Pid}}", "back"), p.ctl("inspect", "-f", "{{.State.Pid}}", "own"), p.ctl("inspect", "-f", "{{.State.Pid}}", "later"), p.ctl("info", "-f", "{{.SupervisorPid}}")}
	p.Kill9()
	slices.Reverse(pids) // the supervisor first: it tells nobody any more
	for _, pid := range pids {
		testenv.Run(t, "kill", "-9", pid)
	}
	testenv.Run(t, "sh", "-c", "for m in $(awk -v s="+p.State+"/ 'index($5, s) == 1 {print $5}' /proc/self/mountinfo | sort -r); do umount -l $m; done; rm -rf "+p.State)
	p.Start()
	p.eventually("running", "inspect", "-f", "{{.State.Status}}", "back")
	addr := p.ctl("port", "back", "80")
	testenv.Eventually(t, patience, "it serves again", func() error {
		client := http.Client{Timeout: time.Second}
		resp, err := client.Get("http://" + addr + "/")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if text, _ := io.ReadAll(resp.Body); string(text) != "x\n" {
			return fmt.Errorf("%q", text)
		}
		return nil
	})
	ip := p.ctl("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "back")
	p.want(ip, "exec", "back", "sh", "-c", "grep -w $(hostname) /etc/hosts | head -n 1 | cut -f1")
	p.want("exited", "inspect", "-f", "{{.State.Status}}", "later")
	p.want("later", "start", "later")
	p.eventually("y\ny", "exec", "later", "cat", "/kept")
	p.want("own", "start", "own")
	p.eventually("example.com\nexample.com", "exec", "own", "cat", "/kept")
	p.want("exited", "inspect", "-f", "{{.State.Status}}", "stays")
	p.ctl("rm", "-f", "back", "later", "stays", "own")
	p.want("kept", "volume", "rm", "kept")
}

// TestRunFlags tries flags of run against a real agent.
func TestRunFlags(t *testing.T) {
	p := newPerson(t)
	p.t = t
	run := func(want string, args ...string) {
		t.Helper()
		p.want(want, append([]string{"run", "--rm"}, args...)...)
	}
	run("170:290", "--ulimit", "nofile=170:290", "busybox", "sh", "-c", "echo $(ulimit -n):$(ulimit -Hn)")
	run("8192", "--shm-size", "8m", "busybox", "sh", "-c", "df -k /dev/shm | tail -n 1 | awk '{print $2}'")
	run("1", "--sysctl", "net.ipv4.ip_forward=1", "busybox", "cat", "/proc/sys/net/ipv4/ip_forward")
	run("pod-init", "--init", "busybox", "sh", "-c", "tr '\\0' '\\n' < /proc/1/cmdline | head -n 1")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	run(host, "--uts", "host", "busybox", "hostname")
	run("uid=5 gid=10 groups=10,77", "-u", "5:10", "--group-add", "77", "busybox", "sh", "-c", "id | sed 's/([a-z]*)//g'")
	run("0", "-u", "5:10", "--group-add", "root", "busybox", "sh", "-c", "id -G | grep -qw 0; echo $?")
	run("a b", "-e", "A=a", "--env-file", file(t, "B=b\n# no\n"), "busybox", "sh", "-c", "echo $A $B")
	run("x y", "--label-file", file(t, "f=x\n"), "-l", "g=y", "--name", "labelled", "busybox", "echo", "x", "y")
	run("visible", "--security-opt", "systempaths=unconfined", "busybox", "sh", "-c", "grep -q CPU0 /proc/interrupts && echo visible")
	run("hidden", "busybox", "sh", "-c", "grep -q CPU0 /proc/interrupts || echo hidden")
	run("1", "--security-opt", "no-new-privileges", "busybox", "sh", "-c", "grep NoNewPrivs /proc/self/status | awk '{print $2}'")
	run("5", "--oom-score-adj", "5", "busybox", "cat", "/proc/self/oom_score_adj")
	run("c", "--device", "/dev/null:/dev/other:r", "busybox", "sh", "-c", "stat -c %F /dev/other | cut -c1")

	p.ctl("run", "-d", "--name", "first", "-l", "n=1", "--ipc", "shareable", "busybox", "sleep", "1000")
	run("sleep 1000", "--pid", "container:first", "busybox", "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline | sed 's/ $//'")
	p.ctl("exec", "first", "touch", "/dev/shm/mark")
	run("mark", "--ipc", "container:first", "busybox", "ls", "/dev/shm")
	addr := p.ctl("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "first")
	run(addr, "--link", "first:db", "busybox", "sh", "-c", "grep -w db /etc/hosts | cut -f1")
	if said := p.fails("run", "--pid", "container:nothing", "busybox", "true"); said != "Error: No such container: nothing" {
		t.Error(said)
	}
	p.ctl("run", "-d", "--name", "quiet", "--log-driver", "none", "-t", "busybox", "sh", "-c", "echo x; sleep 1000")
	if said := p.fails("logs", "quiet"); !strings.Contains(said, "has no log") && !strings.Contains(said, "does not support reading") {
		t.Error(said)
	}
	parent := "/person-test-" + filepath.Base(t.TempDir())
	p.ctl("run", "-d", "--name", "placed", "--cgroup-parent", parent, "busybox", "sleep", "1000")
	if out := p.ctl("inspect", "-f", "{{.CgroupPath}}", "placed"); !strings.HasPrefix(out, parent+"/") {
		t.Error(out)
	}
	p.want("first\nquiet\nplaced", "rm", "-f", "first", "quiet", "placed")
	removeCgroup(t, parent)
}

// removeCgroup removes the parent that a person named, which is theirs.
func removeCgroup(t *testing.T, name string) {
	t.Helper()
	dirs, err := filepath.Glob("/sys/fs/cgroup/*" + name)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(dirs, "/sys/fs/cgroup"+name) {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	}
}

// file makes a file.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
